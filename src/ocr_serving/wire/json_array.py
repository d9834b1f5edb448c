"""Arrays <-> the numbers of a JSON array. Neither direction runs Python code for each element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ocr_serving.errors import BadInput

_ELEMENTS: dict[str, msgspec.json.Decoder[Any]] = {
    # Not strict: protobuf's JSON also writes numbers as strings ("12", "NaN", "Infinity") and takes 1.0 for 1.
    kind: msgspec.json.Decoder(list[python_type], strict=False)  # type: ignore[valid-type]
    for kind, python_type in {"f": float, "i": int, "u": int, "b": bool}.items()
}
"""numpy's kind of a type -> decoder of its elements."""


def encode(array: NDArray[Any]) -> list[Any]:
    """The elements in C order, for a JSON encoder.

    A float32 becomes the double of the same value. JSON has no NaN and no infinity; they become the strings "NaN",
    "Infinity" and "-Infinity", as in protobuf's own JSON: every protobuf library reads them, and so does
    np.array(values, np.float32).
    """
    flat = array.ravel()
    if flat.dtype.kind != "f" or np.isfinite(flat).all():
        return flat.tolist()
    elements = flat.astype(object)
    elements[np.isnan(flat)] = "NaN"
    elements[flat == np.inf] = "Infinity"
    elements[flat == -np.inf] = "-Infinity"
    return elements.tolist()


def decode(text: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The elements of a JSON array, which may be nested, one-dimensional and in the order they are written.

    Args:
        text: well-formed JSON.
        dtype: any type of numbers or bool.

    Raises:
        BadInput: anything but an array of such elements, or an element that the type cannot hold.
    """
    flat = text.translate(None, b"[]")
    if not flat.strip(b", \t\r\n"):
        flat = b""
    try:
        if not text.lstrip().startswith(b"["):
            raise msgspec.DecodeError
        values = _ELEMENTS[dtype.kind].decode(b"[%b]" % flat)
    except msgspec.DecodeError as error:
        raise BadInput(f"Its data must be an array of {dtype.name}, flat or nested.") from error
    return from_list(values, dtype)


def from_list(values: Sequence[float], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A one-dimensional array of numbers.

    Raises:
        BadInput: an integer out of the type's range. A float out of range becomes infinite, as in the original.
    """
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype)
    except OverflowError as error:
        raise BadInput(f"An element is out of the range of {dtype.name}.") from error
