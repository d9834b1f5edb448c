"""Arrays <-> the numbers of a JSON array.

Neither direction runs Python code for each element. Both go piece by piece: msgspec keeps all other threads waiting
while it reads or writes, and Python's numbers take eight times the memory of the array's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ocr_serving.errors import BadInput, TooLarge
from ocr_serving.wire import elements
from ocr_serving.wire.frame import MAX_BODY

_ELEMENTS: dict[str, msgspec.json.Decoder[Any]] = {
    # Not strict: protobuf's JSON also writes numbers as strings ("12", "NaN", "Infinity") and takes 1.0 for 1.
    kind: msgspec.json.Decoder(list[python_type], strict=False)  # type: ignore[valid-type]
    for kind, python_type in {"f": float, "i": int, "u": int, "b": bool}.items()
}
"""numpy's kind of a type -> decoder of its elements."""


def encode(array: NDArray[Any]) -> msgspec.Raw:
    """The elements in C order, flat, as JSON.

    A float32 becomes the double of the same value. JSON has no NaN and no infinity; they become the strings "NaN",
    "Infinity" and "-Infinity", as in protobuf's own JSON: every protobuf library reads them, and so does
    np.array(values, np.float32).

    Raises:
        TooLarge: it takes more than MAX_BODY bytes.
    """
    flat = array.ravel()
    pieces = []
    size = 0
    for at in range(0, flat.size, elements.PIECE):
        pieces.append(msgspec.json.encode(_elements(flat[at : at + elements.PIECE]).tolist())[1:-1])
        size += len(pieces[-1])
        if size > MAX_BODY:
            raise TooLarge(f"An array takes more than {MAX_BODY} bytes as JSON, the limit; ask for it in binary.")
    return msgspec.Raw(b"[%b]" % b",".join(pieces))


def decode(text: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The elements of a JSON array, which may be nested, one-dimensional and in the order they are written.

    Args:
        text: well-formed JSON.
        dtype: any type of numbers or bool.

    Raises:
        BadInput: anything but an array of such elements, or an element that the type cannot hold.
    """
    try:
        if not text.lstrip().startswith(b"["):
            raise msgspec.DecodeError
        pieces = [_decode_piece(piece, dtype) for piece in _pieces(text)]
    except msgspec.DecodeError as error:
        raise BadInput(f"Its data must be an array of {dtype.name}.") from error
    return np.concatenate(pieces)


def _elements(flat: NDArray[Any]) -> NDArray[Any]:
    """Those that JSON lacks as strings."""
    if flat.dtype.kind != "f" or np.isfinite(flat).all():
        return flat
    elements = flat.astype(object)
    elements[np.isnan(flat)] = "NaN"
    elements[flat == np.inf] = "Infinity"
    elements[flat == -np.inf] = "-Infinity"
    return elements


def _pieces(text: bytes) -> Iterator[bytes]:
    """The text without its brackets, cut at commas; of an array without elements, one empty piece.

    Raises:
        DecodeError: while iterating; an array has elements and, beside them, arrays that have none.
    """
    blank = 0
    at = count = 0
    while at < len(text):
        end = text.find(b",", at + elements.PIECE)
        end = len(text) if end < 0 else end
        flat = text[at:end].translate(None, b"[]")
        at, count = end + 1, count + 1
        blank += not flat.strip(b", \t\r\n")
        if not blank:
            yield flat
        elif blank != count:
            raise msgspec.DecodeError
    if blank:
        yield b""


def _decode_piece(flat: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    return elements.from_numbers(_ELEMENTS[dtype.kind].decode(b"[%b]" % flat), dtype)
