"""OpenVINO's Python package, imported without what it tells others, and the models that it reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ocr_serving.errors import ConfigError

_SUFFIXES = (".onnx", ".pdmodel")
"""Endings by which it tells what kind of file it is."""


def load() -> Any:
    """The package.

    Its import would send an event to Google Analytics, and write an identity and counters into HOME. Where its
    telemetry package cannot be imported, it makes do with a stub of its own.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # how Python notes that
    import openvino

    return openvino


def read_model(core: Any, model: Path, params: Path | None) -> Any:
    """The graph in an ONNX or .pdmodel file, whatever it is called.

    Args:
        core: openvino.Core.
        model: the file.
        params: the parameters of a .pdmodel.

    Raises:
        ConfigError: OpenVINO cannot read it.
    """
    # Told where the parameters are, it finds those of another name (model.pdmodel with params.pdiparams), too.
    files = [file for file in (model, params) if file]
    try:
        # Of a file with another ending, or none (__model__), it gets the content, and tells its kind by looking.
        return core.read_model(*(str(file) if model.suffix in _SUFFIXES else file.read_bytes() for file in files))
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"OpenVINO cannot read {model}: the file is damaged or of another kind.") from error
