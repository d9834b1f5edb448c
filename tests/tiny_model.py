"""A model folder that loads in a moment: y = factor * x for float32 (n, SIZE), through a matrix worth noticing."""

from pathlib import Path

import numpy as np

from ocr_serving.wire.fields import delimited

SIZE = 512
"""Its matrix takes SIZE * SIZE * 4 bytes, 1 MiB."""
_FLOAT = 1


def write(folder: Path, factor: int) -> Path:
    """Make the folder, or put another model in it, at once as far as a reader is concerned; returns it."""
    folder.mkdir(exist_ok=True)
    (folder / "serving_server_conf.prototxt").write_text(_CONF)
    new = folder / "inference.onnx.new"
    new.write_bytes(onnx(factor))
    new.rename(folder / "inference.onnx")
    return folder


def onnx(factor: int) -> bytes:
    """The model as ONNX; the field numbers are onnx.proto's."""
    matrix = factor * np.eye(SIZE, dtype=np.float32)
    weights = _varint(1, SIZE) + _varint(1, SIZE) + _varint(2, _FLOAT) + _field(8, b"w") + _field(9, matrix.tobytes())
    node = _field(1, b"x") + _field(1, b"w") + _field(2, b"y") + _field(4, b"MatMul")
    graph = (
        _field(1, node) + _field(2, b"tiny") + _field(5, weights) + _field(11, _value(b"x")) + _field(12, _value(b"y"))
    )
    return _varint(1, 8) + _field(7, graph) + _field(8, _varint(2, 13))


def _value(name: bytes) -> bytes:
    dims = _field(1, _field(2, b"n")) + _field(1, _varint(1, SIZE))
    return _field(1, name) + _field(2, _field(1, _varint(1, _FLOAT) + _field(2, dims)))


def _field(number: int, content: bytes) -> bytes:
    return b"".join(delimited(number, [content]))


def _varint(number: int, value: int) -> bytes:
    encoded = bytes([number << 3])
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


_CONF = f"""
feed_var {{ name: "x" alias_name: "x" feed_type: 1 shape: {SIZE} }}
fetch_var {{ name: "y" alias_name: "y" fetch_type: 1 shape: {SIZE} }}
"""
