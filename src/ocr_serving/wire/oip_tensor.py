"""Tensors of the Open Inference Protocol v2: datatypes and raw contents <-> numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_serving.errors import BadInput
from ocr_serving.wire import json_array
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.tensor import Tensor, memory

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
_MAX_RANK = 32


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
    """An input's array from its raw contents; see fill() and from_strings()."""
    if datatype == BYTES:
        return from_strings(_split_strings(content), shape)
    dtype = dtype_of(datatype)
    if len(content) % dtype.itemsize:
        raise BadInput(f"{len(content)} bytes are no whole number of {datatype}.")
    elements = np.frombuffer(content, np.uint8 if dtype.kind == "b" else dtype)
    return fill(shape, elements.astype(dtype, copy=False))


def to_raw(tensor: Tensor) -> Buffer:
    """The raw contents of an output; not copied where the array lies in memory as in the protocol.

    Raises:
        BadInput: the protocol has no such type.
    """
    datatype = datatype_of(tensor.array.dtype)
    if datatype == BYTES:
        texts = [text.encode() for text in tensor.strings()]
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)
    return memory(tensor.array.astype(dtype_of(datatype), copy=False))


def to_json(tensor: Tensor) -> list[Any]:
    """The elements of an output for a JSON encoder; see json_array.encode."""
    return tensor.strings() if tensor.array.dtype.kind in "SU" else json_array.encode(tensor.array)


def fill(shape: Sequence[int], elements: NDArray[Any]) -> NDArray[Any]:
    """The elements in that shape, C-contiguous and aligned.

    Raises:
        BadInput: they do not fill it, or it is no shape.
    """
    _check(shape, elements.size)
    return np.require(elements.reshape(tuple(shape)), requirements=["C", "A"])


def from_strings(strings: Sequence[bytes], shape: Sequence[int]) -> NDArray[np.uint8]:
    """What GeneralModelService makes of strings, too: uint8 (n,), with a NUL between one string and the next.

    Raises:
        BadInput: they do not fill the shape, or it is no shape.
    """
    _check(shape, len(strings))
    return np.frombuffer(b"\0".join(strings), np.uint8)


def _check(shape: Sequence[int], count: int) -> None:
    if len(shape) > _MAX_RANK or any(dim < 0 for dim in shape):
        raise BadInput(f"A shape has at most {_MAX_RANK} dimensions, none of them negative.")
    if count != math.prod(shape):
        raise BadInput(f"{count} elements do not fill the shape {list(shape)}.")


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
