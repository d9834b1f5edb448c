"""The body of a request, {"feed": [{"x": "<base64>"}], "fetch": ["res"]}, as Paddle Serving's clients send it."""

from __future__ import annotations

from typing import Any

import msgspec

from ocr_serving.errors import BadInput, LimitExceeded

EXAMPLE = '{"feed": [{"x": "<base64 of an image file>"}], "fetch": ["res"]}'


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


def parse(body: bytes, max_images: int) -> Form:
    """Read a request's body.

    Base64 is decoded in the same pass as the JSON. The alphabet is the standard one, padding is required, and white
    space is passed over (tools wrap base64 at 76 characters); the URL-safe alphabet and data: URIs are refused.

    Raises:
        BadInput: the body is not such a form; the message says where and what is accepted.
        LimitExceeded: more than `max_images` images.
    """
    try:
        form = _DECODER.decode(body)
    except msgspec.ValidationError:
        form = _read_closely(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_json() from error
    if not form.feed:
        raise BadInput(f'"feed" is empty: it must hold at least one image. Example: {EXAMPLE}')
    if len(form.feed) > max_images:
        raise LimitExceeded(f"feed holds {len(form.feed)} images; at most {max_images} are accepted (max_images).")
    for i, item in enumerate(form.feed):
        if not item.x:
            raise BadInput(f"feed[{i}].x is an empty string: it must be the base64 of an image file.")
    return form


def _read_closely(body: bytes) -> Form:
    """The form of a body that the fast decoder refuses: base64 with white space, else the sentence that says why."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json() from error
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
    text = "".join(item["x"].split())
    try:
        return msgspec.convert(text, bytes)
    except msgspec.ValidationError as error:
        raise BadInput(f"feed[{i}].x is not base64: {_base64_fault(text)}.") from error


def _base64_fault(text: str) -> str:
    if text.startswith("data:"):
        return "it is a data: URI; send only what follows its comma"
    if "-" in text or "_" in text:
        return "it uses the URL-safe alphabet; the standard one, with + and /, is accepted"
    if len(text) % 4:
        return "its length is no multiple of 4, so it was cut short or lacks its = padding"
    return "only A-Z, a-z, 0-9, + and / are accepted, padded with ="


def _not_json() -> BadInput:
    return BadInput(f"The body is not valid JSON in UTF-8. Example: {EXAMPLE}")
