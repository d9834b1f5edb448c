"""OpenVINO's Python package, imported without what it tells others."""

from __future__ import annotations

import sys
from typing import Any


def load() -> Any:
    """The package.

    Its import would send an event to Google Analytics, and write an identity and counters into HOME. Where its
    telemetry package cannot be imported, it makes do with a stub of its own.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # how Python notes that
    import openvino

    return openvino
