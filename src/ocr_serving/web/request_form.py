"""The body of a request, {"feed": [{"x": "<base64>"}], "fetch": ["res"]}, as Paddle Serving's clients send it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

from ocr_serving import base64_text
from ocr_serving.errors import BadInput, LimitExceeded

EXAMPLE = '{"feed": [{"x": "<base64 of an image file>"}], "fetch": ["res"]}'

MAX_MARKS = 100_000
"""Most quotation marks and commas in a body, so that one of a million tiny values is refused before it takes memory and
holds up others; a request of a thousand images has some 5000."""
_BLOCK = 65536
"""Bytes counted at once, so that what is compared stays in a core's cache."""


class Item(msgspec.Struct, frozen=True):
    """One image of the request; other keys are passed over, as the original did.

    Attributes:
        x: the image file's bytes.
    """

    x: bytes


class Form(msgspec.Struct, frozen=True):
    """A request, checked.

    Attributes:
        feed: the images, at least one.
        fetch: names of the outputs asked for; may be empty.
    """

    feed: list[Item]
    fetch: list[str]


_DECODER = msgspec.json.Decoder(Form)
_NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(body: bytes, max_images: int) -> Form:
    """Read a request's body.

    Base64 is decoded in the same pass as the JSON; what is accepted besides, see base64_text.decode.

    Raises:
        BadInput: the body is not such a form, or names something twice; the message says where and what is accepted.
        LimitExceeded: more than `max_images` images.
    """
    quotes = _count_quotes(body)
    try:
        form = _DECODER.decode(body)
    except _NOT_READ:
        form = _read_closely(body)
    if quotes != 4 + 4 * len(form.feed) + 2 * len(form.fetch):  # more than the form needs: other keys, or keys twice
        _refuse_duplicates(body)
    if not form.feed:
        raise BadInput(f'"feed" is empty: it must hold at least one image. Example: {EXAMPLE}')
    if len(form.feed) > max_images:
        raise LimitExceeded(f"feed holds {len(form.feed)} images; at most {max_images} are accepted (max_images).")
    for i, item in enumerate(form.feed):
        if not item.x:
            raise BadInput(f"feed[{i}].x is an empty string: it must be the base64 of an image file.")
    return form


def decode(body: bytes, example: str) -> Any:
    """What a body of JSON holds.

    Raises:
        BadInput: it is none; the message shows the example.
    """
    try:
        return msgspec.json.decode(body)
    except _NOT_READ as error:
        raise _not_json(example) from error


def _read_closely(body: bytes) -> Form:
    """The form of a body that the fast decoder refuses: base64 with white space, else the sentence that says why."""
    data = decode(body, EXAMPLE)
    if not isinstance(data, dict):
        raise BadInput(f"The body must be a JSON object. Example: {EXAMPLE}")
    for key in ("feed", "fetch"):
        if key not in data:
            raise BadInput(f'The body has no "{key}". Example: {EXAMPLE}')
        if not isinstance(data[key], list):
            raise BadInput(f'"{key}" must be a list. Example: {EXAMPLE}')
    if not all(isinstance(name, str) for name in data["fetch"]):
        raise BadInput(f'"fetch" must hold names of outputs only. Example: {EXAMPLE}')
    return Form([Item(_image_file(item, i)) for i, item in enumerate(data["feed"])], data["fetch"])


def _image_file(item: Any, i: int) -> bytes:
    if not isinstance(item, dict):
        raise BadInput(f"feed[{i}] must be an object with one image. Example: {EXAMPLE}")
    if "x" not in item:
        raise BadInput(f'feed[{i}] has no "x". Example: {EXAMPLE}')
    if not isinstance(item["x"], str):
        raise BadInput(f"feed[{i}].x must be a string: the base64 of an image file.")
    return base64_text.decode(item["x"], f"feed[{i}].x")


def _count_quotes(body: bytes) -> int:
    """Quotation marks in a body; unlike with bytes.count, other threads run meanwhile.

    Raises:
        BadInput: more than MAX_MARKS of them and of commas.
    """
    characters = np.frombuffer(body, np.uint8)
    quotes = commas = 0
    for start in range(0, len(body), _BLOCK):
        block = characters[start : start + _BLOCK]
        quotes += int(np.count_nonzero(block == ord('"')))
        commas += int(np.count_nonzero(block == ord(",")))
        if quotes + commas > MAX_MARKS:
            raise BadInput(f"The body holds more than {MAX_MARKS} quotation marks and commas. Example: {EXAMPLE}")
    return quotes


def _refuse_duplicates(body: bytes) -> None:
    """Raise BadInput if an object has a key twice: readers differ in which one they take."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise BadInput(f"An object in the body has a key twice. Example: {EXAMPLE}")

    try:
        json.loads(body, object_pairs_hook=check)
    except (ValueError, RecursionError) as error:
        raise _not_json(EXAMPLE) from error


def _not_json(example: str) -> BadInput:
    return BadInput(f"The body is not valid JSON in UTF-8. Example: {example}")
