"""The Flask app of a web service: one route, one walk from body to answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

from ocr_serving import image
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput
from ocr_serving.geometry import Image
from ocr_serving.settings import Settings
from ocr_serving.web import errors, request_form
from ocr_serving.web.services import Service, wanted_outputs

PATH = "/ocr/prediction"
"""The original's three services are all named "ocr"."""


def create_app(service: Service, settings: Settings) -> Flask:
    """A WSGI app that answers POST /ocr/prediction with what the service computes."""
    return app_of_path(PATH, partial(prediction, service, settings), settings)


def app_of_path(path: str, view: Callable[[], ResponseReturnValue], settings: Settings) -> Flask:
    """A WSGI app that answers POST requests of one path, and every error with JSON."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.merge_slashes = False  # another path is 404, never a redirect
    errors.register(app, path, settings.max_body_bytes)
    app.add_url_rule(path, "prediction", view, methods=["POST"])
    return app


def prediction(service: Service, settings: Settings) -> Response:
    """Answer the current request; compact JSON with \\uXXXX escapes and a newline at its end, as the original's."""
    if not request.is_json:
        raise BadInput(f"Content-Type must be application/json, with a body like {request_form.EXAMPLE}")
    return jsonify(result=predict(request.get_data(cache=False), service, settings))


def predict(body: bytes, service: Service, settings: Settings) -> Any:
    """The value of "result" for a request's body.

    Raises:
        OcrServingError: what is wrong, by the error tree.
    """
    deadline = Deadline.after(settings.request_timeout)
    form = request_form.parse(body, settings.max_images)
    outputs = wanted_outputs(service, form.fetch)
    images = [_decode(item.x, i, settings.max_pixels) for i, item in enumerate(form.feed)]
    return service.answer(images, outputs, deadline)


def _decode(data: bytes, i: int, max_pixels: int) -> Image:
    try:
        return image.decode(data, max_pixels)
    except BadInput as error:
        raise type(error)(f"feed[{i}].x: {error}") from error
