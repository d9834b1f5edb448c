"""The metadata of an ONNX file, read from its protobuf bytes: no ONNX package is needed for one dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ocr_serving.errors import ConfigError

_METADATA_PROPS = 14
"""Field of ModelProto (onnx.proto): repeated StringStringEntryProto {key = 1, value = 2}."""
_FIXED_BYTES = {1: 8, 5: 4}
"""Protobuf wire types of a fixed size -> that size."""


def read(path: Path) -> dict[str, str]:
    """Key -> value of the model's metadata_props.

    Raises:
        ConfigError: the file is not an ONNX model.
    """
    try:
        entries = [dict(_fields(value)) for number, value in _fields(path.read_bytes()) if number == _METADATA_PROPS]
        return {entry[1].decode(): entry.get(2, b"").decode() for entry in entries}
    except (IndexError, KeyError, UnicodeDecodeError, _NotProtobuf) as error:
        raise ConfigError(f"{path} is damaged: it is not an ONNX model.") from error


class _NotProtobuf(ValueError):
    """The bytes do not follow protobuf's wire format."""


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(field number, content) of every length-delimited field at the top level; other fields are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _varint(data, at)
        elif wire_type in _FIXED_BYTES:
            at += _FIXED_BYTES[wire_type]
        elif wire_type == 2:
            size, at = _varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise _NotProtobuf
    if at != len(data):
        raise _NotProtobuf


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at an offset, and the offset after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
