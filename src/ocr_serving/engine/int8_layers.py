"""int8.json of a det model's folder: which of its convolutions run in 8 bits, and how their inputs are rounded."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec

from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import INT8_LAYERS, ModelDir

logger = logging.getLogger(__name__)


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One convolution.

    Attributes:
        name: of its node in the graph that the engine runs.
        scale: (in,), by which the channels of its input are divided, to be more alike.
        low, high: of the values after that, those that become 0 and 255; 0 is on a step between.
        error: (out,), what the rounding adds to its output on average.
    """

    name: str
    scale: tuple[float, ...]
    low: float
    high: float
    error: tuple[float, ...]


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model_sha256: str
    layers: tuple[Layer, ...]


def read(model: ModelDir) -> tuple[Layer, ...]:
    """The layers in the model's folder; none where it has no such file, or one of other weights.

    Raises:
        ConfigError: the file cannot be read, or is damaged.
    """
    path = model.path / INT8_LAYERS
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_Content)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged: {error}.") from error
    if content.model_sha256 != _sha256(model):
        warn_unused(model)
        return ()
    return content.layers


def warn_unused(model: ModelDir) -> None:
    """Log that the file is of other weights, or of another version of this program."""
    file, again = model.path / INT8_LAYERS, f"python3 -m ocr_serving.calibration {model.path}"
    logger.warning("%s was made for another model and is not used; make it again with: %s", file, again)


def write(model: ModelDir, layers: tuple[Layer, ...]) -> Path:
    """Write the layers into the model's folder, scales and errors to four digits; the file written."""
    rounded = tuple(
        msgspec.structs.replace(layer, scale=_short(layer.scale), error=_short(layer.error)) for layer in layers
    )
    path = model.path / INT8_LAYERS
    text = msgspec.json.format(msgspec.json.encode(_Content(_sha256(model), rounded)), indent=0)
    path.write_bytes(text + b"\n")
    return path


def _short(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)


def _sha256(model: ModelDir) -> str:
    """Of the model's weights, in hex."""
    return hashlib.sha256((model.params_file or model.model_file).read_bytes()).hexdigest()
