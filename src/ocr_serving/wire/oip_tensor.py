"""Tensors of the Open Inference Protocol v2: datatypes and raw contents <-> numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from ocr_serving.errors import BadInput
from ocr_serving.wire import elements, json_array
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.tensor import Tensor

BYTES = "BYTES"
"""Strings, the only datatype whose elements have no fixed size."""
_DTYPES = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_DATATYPES = {dtype.name: datatype for datatype, dtype in _DTYPES.items()}
_LENGTH_BYTES = 4


def dtype_of(datatype: str) -> np.dtype[Any]:
    """The numpy type of a datatype other than BYTES, in the protocol's byte order.

    Raises:
        BadInput: there is no such datatype, or none in numpy (BF16).
    """
    if datatype not in _DTYPES:
        raise BadInput(f"A datatype is not supported; supported are {', '.join(_DTYPES)} and {BYTES}.")
    return _DTYPES[datatype]


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The datatype of a numpy type; BYTES for str and bytes.

    Raises:
        BadInput: it has none.
    """
    if dtype.kind in "SU":
        return BYTES
    if dtype.name not in _DATATYPES:
        raise BadInput(f"Arrays of type {dtype.name} cannot be sent in this protocol.")
    return _DATATYPES[dtype.name]


def from_raw(datatype: str, shape: Sequence[int], content: Buffer) -> NDArray[Any]:
    """An input's array from its raw contents.

    Raises:
        BadInput: no such datatype, or they do not fill the shape, or it is no shape.
    """
    if datatype == BYTES:
        return from_strings(_split_strings(content), shape)
    return elements.fill(shape, elements.from_bytes(content, dtype_of(datatype)))


def to_raw(tensor: Tensor) -> Buffer:
    """The raw contents of an output; not copied where the array lies in memory as in the protocol.

    Raises:
        BadInput: the protocol has no such type.
    """
    datatype = datatype_of(tensor.array.dtype)
    if datatype == BYTES:
        texts = [text.encode() for text in tensor.strings()]
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)
    return elements.to_bytes(tensor.array.astype(dtype_of(datatype), copy=False))


def to_json(tensor: Tensor) -> list[str] | Raw:
    """The elements of an output for a JSON encoder; see json_array.encode."""
    return tensor.strings() if tensor.array.dtype.kind in "SU" else json_array.encode(tensor.array)


def from_strings(strings: Sequence[bytes], shape: Sequence[int]) -> NDArray[np.uint8]:
    """An input's array of strings; see elements.from_strings.

    Raises:
        BadInput: they do not fill the shape, or it is no shape.
    """
    elements.check(shape, len(strings), "string")
    return elements.from_strings(strings)


def _split_strings(content: Buffer) -> list[bytes]:
    """Strings that lie one after the other, before each its length."""
    strings = []
    at = 0
    while at < len(content):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(content[at:begin], "little")
        if at > len(content):
            raise BadInput("The strings end in the middle of one.")
        strings.append(bytes(content[begin:at]))
    return strings
