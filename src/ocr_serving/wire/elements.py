"""Elements of tensors as they lie in messages <-> arrays; all protocols share this."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_serving.errors import BadInput
from ocr_serving.wire.fields import Buffer

_MAX_RANK = 32
PIECE = 64 * 1024
"""Numbers of Python's, or bytes of JSON, that are read or written at a time: a few milliseconds, while all other
threads wait."""


def from_bytes(content: Buffer, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The elements in a message's bytes, one-dimensional; it shares their memory where it can.

    Raises:
        BadInput: the bytes end in the middle of one.
    """
    if len(content) % dtype.itemsize:
        raise BadInput(f"{len(content)} bytes are no whole number of {dtype.name}.")
    return np.frombuffer(content, np.uint8 if dtype.kind == "b" else dtype).astype(dtype, copy=False)


def to_bytes(array: NDArray[Any]) -> memoryview:
    """The array's bytes in C order; not copied where they lie in memory so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def from_numbers(values: Sequence[float], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A one-dimensional array of numbers: a list, or a repeated field of protobuf.

    Raises:
        BadInput: an integer out of the type's range. A float out of range becomes infinite, as in the original.
    """
    array = np.empty(len(values), dtype)
    try:
        with np.errstate(over="ignore"):
            for at in range(0, len(values), PIECE):
                # Slices are lists: newer protobufs' own containers are cast without a look at the range.
                array[at : at + PIECE] = np.array(values[at : at + PIECE], dtype)
        return array
    except OverflowError as error:
        raise BadInput(f"An element is out of the range of {dtype.name}.") from error


def from_strings(strings: Sequence[bytes]) -> NDArray[np.uint8]:
    """What the original server makes of strings: uint8 (n,), with a NUL between one string and the next."""
    return np.frombuffer(b"\0".join(strings), np.uint8)


def fill(shape: Sequence[int], elements: NDArray[Any]) -> NDArray[Any]:
    """The elements in that shape, C-contiguous and aligned.

    Raises:
        BadInput: see check().
    """
    check(shape, elements.size, elements.dtype.name)
    try:
        return np.require(elements.reshape(tuple(shape)), requirements=["C", "A"])
    except (ValueError, OverflowError) as error:  # without elements, a shape can be of any size
        raise BadInput(f"The shape {list(shape)} is too large.") from error


def check(shape: Sequence[int], count: int, kind: str) -> None:
    """Make sure that so many elements of that kind fill the shape.

    Raises:
        BadInput: they do not, or it is no shape.
    """
    if len(shape) > _MAX_RANK or any(dim < 0 for dim in shape):
        raise BadInput(f"A shape has at most {_MAX_RANK} dimensions, none of them negative.")
    if count != math.prod(shape):
        raise BadInput(f"{count} elements of {kind} do not fill the shape {list(shape)}.")
