"""The metadata of an ONNX file, read from its protobuf bytes: no ONNX package is needed for one dictionary."""

from __future__ import annotations

from pathlib import Path

from ocr_serving.errors import BadInput, ConfigError
from ocr_serving.wire import fields

_METADATA_PROPS = 14
"""Field of ModelProto (onnx.proto): repeated StringStringEntryProto {key = 1, value = 2}."""


def read(path: Path) -> dict[str, str]:
    """Key -> value of the model's metadata_props.

    Raises:
        ConfigError: the file is not an ONNX model.
    """
    try:
        entries = [
            {part.number: bytes(part.content) for part in fields.split(field.content) if part.content is not None}
            for field in fields.split(memoryview(path.read_bytes()))
            if field.number == _METADATA_PROPS and field.content is not None
        ]
        return {entry[1].decode(): entry.get(2, b"").decode() for entry in entries}
    except (BadInput, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged: it is not an ONNX model.") from error
