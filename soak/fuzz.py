"""Atheris on one decoder: `python -m soak.fuzz TARGET [libFuzzer's flags]`. Errors of our tree are "
"answers; all else is a find."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping

import atheris

with atheris.instrument_imports(include=["ocr_serving"]):
    from ocr_serving import image
    from ocr_serving.errors import OcrServingError
    from ocr_serving.web import request_form
    from ocr_serving.wire import compression, frame, json_form, messages, oip_json, oip_messages

_MOST = 1 << 24
"""Bytes and pixels that a decoder may make of an input."""


def _frame(data: bytes) -> None:
    try:
        frame.read(io.BytesIO(data).readinto, _MOST)
    except ConnectionError:
        return  # cut short, which the reader of a socket expects


def _message(data: bytes) -> None:
    request = messages.decode_request(compression.decompress(memoryview(data)[1:], data[0] % 5, _MOST))
    for tensor in request.tensors:
        tensor.unpack()


def _json(data: bytes) -> None:
    for tensor in json_form.decode_request(data).tensors:
        tensor.unpack()


def _oip(data: bytes) -> None:
    data = data.ljust(2, b"\0")
    if data[0] % 2:
        oip_json.decode_request(memoryview(data)[2:], data[1] if data[0] % 4 == 1 else None)
    else:
        oip_messages.decode_request(data[1:])


TARGETS: Mapping[str, Callable[[bytes], object]] = {
    "image": lambda data: image.decode(data, _MOST),
    "form": lambda data: request_form.parse(data, 64),
    "frame": _frame,
    "message": _message,
    "json": _json,
    "oip": _oip,
}


def main() -> None:
    """Fuzz until told to end or something is found."""
    target = TARGETS[sys.argv.pop(1)]

    def once(data: bytes) -> None:
        try:
            target(data or b"\0")
        except OcrServingError:
            return

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
