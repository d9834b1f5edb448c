"""The app of a web service: the layers that every request passes, the routes, and the walk from body to answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

from ocr_serving import image
from ocr_serving.cores import usable_cores
from ocr_serving.errors import BadInput
from ocr_serving.geometry import Image
from ocr_serving.image_files import image_header
from ocr_serving.server.metrics import CONTENT_TYPE
from ocr_serving.settings import Settings
from ocr_serving.web import errors, exchange, openapi, request_form
from ocr_serving.web.admission import Admission
from ocr_serving.web.api_keys import ApiKeys
from ocr_serving.web.backend import Backend
from ocr_serving.web.exchange import Exchange, Exchanges
from ocr_serving.web.gate import Gate
from ocr_serving.web.metrics import Metrics
from ocr_serving.web.openapi import LIVE, METRICS, OPENAPI, READY
from ocr_serving.web.readiness import Readiness
from ocr_serving.web.services import Service, wanted_outputs

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

PATH = "/ocr/prediction"
"""The original's three services are all named "ocr"."""


class App(Flask):
    """A WSGI app, and what the server that runs it needs to know.

    Attributes:
        gate: who is worked on and who waits; closed when the service is to end.
        metrics: count the requests.
    """

    def __init__(self, gate: Gate, metrics: Metrics) -> None:
        super().__init__(__name__, static_folder=None)
        self.gate = gate
        self.metrics = metrics


def create_app(
    service: Service, settings: Settings, metrics: Metrics | None = None, backends: Sequence[Backend] = ()
) -> App:
    """An app that answers POST /ocr/prediction with what the service computes, and operators' questions about it.

    Args:
        service: computes.
        settings: limits, API keys.
        metrics: what the service already counts with.
        backends: the models it stands on.
    """
    form, result = openapi.form_of(service, settings.max_images), openapi.result_of(service)
    document = openapi.document(PATH, form, result, settings)
    return app_of_path(PATH, partial(prediction, service, settings), settings, document, metrics or Metrics(), backends)


def app_of_path(
    path: str,
    view: Callable[[], ResponseReturnValue],
    settings: Settings,
    document: openapi.Schema,
    metrics: Metrics,
    backends: Sequence[Backend] = (),
) -> App:
    """An app that answers POST requests of one path with a view, and every error with JSON.

    Args:
        path: where.
        view: answers the current request.
        settings: limits, API keys.
        document: OpenAPI's.
        metrics, backends: see create_app.
    """
    gate = Gate(settings.max_running or usable_cores() + 2, settings.max_queued, metrics.dropped)
    metrics.watch(gate, backends)
    app = App(gate, metrics)
    app.url_map.merge_slashes = False  # another path is 404, never a redirect
    errors.register(app, path)
    app.add_url_rule(path, "prediction", view, methods=["POST"])
    app.add_url_rule(LIVE, "live", lambda: {"status": "alive"})
    app.add_url_rule(READY, "ready", partial(ready, gate, Readiness(backends)))
    app.add_url_rule(METRICS, "metrics", lambda: Response(metrics.page(), content_type=CONTENT_TYPE))
    app.add_url_rule(OPENAPI, "openapi", lambda: document)
    # What a request passes, read from the bottom: it gets an id and is counted, shows its key, waits for its turn.
    open_paths = (LIVE, READY, METRICS, OPENAPI) if settings.public_metrics else (LIVE,)
    wsgi: WSGIApplication = Admission(app.wsgi_app, gate, path, settings.request_timeout)
    wsgi = ApiKeys(wsgi, settings.api_keys, open_paths)
    wsgi = Exchanges(wsgi, metrics, routes=(path, LIVE, READY, METRICS, OPENAPI), quiet=(LIVE, READY, METRICS))
    app.wsgi_app = wsgi  # type: ignore[method-assign]  # Flask's own way of putting layers around an app
    return app


def ready(gate: Gate, readiness: Readiness) -> ResponseReturnValue:
    """200 if a request would be answered now, else 503 and why not."""
    if gate.closed:
        return {"status": "shutting down", "faults": {}}, 503
    faults = readiness.faults()
    return {"status": "not ready" if faults else "ready", "faults": faults}, 503 if faults else 200


def prediction(service: Service, settings: Settings) -> Response:
    """Answer the current request; compact JSON in ASCII with a newline at its end, as the original's."""
    this = exchange.of(request.environ)
    result = predict(service, settings, this)
    with this.timings.stage("encode"):
        return jsonify(result=result)


def predict(service: Service, settings: Settings, this: Exchange) -> Any:
    """The value of "result" for the current request.

    Raises:
        OcrServingError: what is wrong, by the error tree.
    """
    with this.timings.stage("parse"):
        body = read_body(settings.max_body_bytes, request_form.EXAMPLE)
        form = request_form.parse(body, settings.max_images)
        this.images = len(form.feed)
        outputs = wanted_outputs(service, form.fetch)
    sources = [_ImageFile(item.x, i, settings.max_pixels) for i, item in enumerate(form.feed)]
    return service.answer(sources, outputs, this.deadline, this.timings)


def read_body(limit: int, example: str) -> bytes:
    """The current request's body; Werkzeug's own reader takes ten times as long, and cuts a long chunked body off.

    Args:
        limit: most bytes.
        example: a body as it should be, for the message.

    Raises:
        TooLarge: it has more bytes than `limit`.
        BadInput: it is not announced as JSON, is compressed, or was cut short.
    """
    if not request.is_json:
        raise BadInput(f"Content-Type must be application/json, with a body like {example}")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise BadInput("Content-Encoding is not supported; send the JSON as it is.")
    length = request.content_length
    if length is None and not request.environ.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > limit:
        raise errors.body_too_large(limit)
    body: bytes = request.environ["wsgi.input"].read(limit + 1 if length is None else length)
    if len(body) > limit:
        raise errors.body_too_large(limit)
    if length is not None and len(body) < length:
        raise BadInput(f"The body ends after {len(body)} of the {length} bytes that Content-Length announces.")
    return body


@dataclass(frozen=True)
class _ImageFile:
    """See services.Source."""

    data: bytes
    index: int
    max_pixels: int

    @property
    def pixels(self) -> int:
        return math.prod(image_header.size(self.data) or (0,))

    def __call__(self) -> Image:
        try:
            return image.decode(self.data, self.max_pixels)
        except BadInput as error:
            raise type(error)(f"feed[{self.index}].x: {error}") from error
