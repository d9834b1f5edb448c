"""Base64 as clients send it."""

from __future__ import annotations

import re

import msgspec

from ocr_serving.errors import BadInput

_ALPHABET = "only A-Z, a-z, 0-9, +, / and, to pad it, ="
_SPACES = b" \t\r\n\v\f"
_OTHERS = re.compile(r"[^A-Za-z0-9+/=_-]")


def decode(text: str, title: str) -> bytes:
    """The bytes behind a base64 text.

    The alphabet is the standard one, padding is required, and white space is passed over (tools wrap base64 at 76
    characters); the URL-safe alphabet and data: URIs are refused.

    Args:
        text: what came.
        title: what it is, for the error's sentence.

    Raises:
        BadInput: it is no base64; the message says why.
    """
    # Split at its spaces, a text of spaces takes a gigabyte.
    compact = text.encode(errors="replace").translate(None, _SPACES).decode()
    try:
        return msgspec.convert(compact, bytes)
    except msgspec.ValidationError as error:
        raise BadInput(f"{title} is not base64: {_fault(compact)}.") from error


def _fault(text: str) -> str:
    if text.startswith("data:"):
        return "it is a data: URI; send only what follows its comma"
    if _OTHERS.search(text):
        return f"{_ALPHABET} are accepted"
    if "-" in text or "_" in text:
        return "it uses the URL-safe alphabet; the standard one, with + and /, is accepted"
    if len(text) % 4:
        return "its length is no multiple of 4, so it was cut short or lacks its = padding"
    return f"{_ALPHABET} are accepted, the latter only at its end"
