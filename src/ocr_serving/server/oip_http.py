"""The Open Inference Protocol v2 over HTTP: JSON, with or without the binary tensor extension."""

from __future__ import annotations

import time
from functools import partial
from typing import Any
from urllib.parse import unquote

import msgspec

from ocr_serving.errors import BadInput, NotFound, OcrServingError
from ocr_serving.server.http import HttpAnswer, HttpRequest
from ocr_serving.server.limits import Limits
from ocr_serving.server.oip import OipService
from ocr_serving.server.service import ModelService
from ocr_serving.server.workers import Workers
from ocr_serving.wire import oip_json

_JSON, _BINARY = "application/json", "application/octet-stream"
_JSON_SIZE = "inference-header-content-length"
_MAX_DIGITS = 19
"""Python refuses to read numbers of thousands of digits."""


class OipRoute:
    """Answers /v2 and all under it. See http.Route."""

    def __init__(self, service: ModelService, workers: Workers, limits: Limits) -> None:
        self._oip = OipService(service, workers)
        self._metrics = service.metrics
        self._workers = workers
        self._limits = limits

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """The answer at the path: GET for all but inference, which takes POST."""
        method = "GET" if request.method == "HEAD" else request.method
        parts = [unquote(part) for part in request.path.split("/")[2:]]
        if parts[:1] == ["models"] and len(parts) > 1:
            version = parts[3] if parts[2:3] == ["versions"] and len(parts) > 3 else ""
            action = parts[4:] if version else parts[2:]
            if (method, action) == ("POST", ["infer"]):
                return self._infer(request, parts[1], version)
            if method == "GET" and action in ([], ["ready"]):
                return self._about_model(parts[1], version, bool(action))
        elif method == "GET":
            if not parts:
                return _json(self._oip.server_metadata())
            if parts == ["health", "live"]:
                return _json({"live": True})
            if parts == ["health", "ready"]:
                return self._ready({})
        raise NotFound(
            "No such path or method; there are GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME and "
            "/v2/models/NAME/ready, and POST /v2/models/NAME/infer."
        )

    def refuse(self, error: OcrServingError) -> HttpAnswer:
        """The protocol's error object."""
        return _json({"error": str(error)}, error.status)

    def _about_model(self, name: str, version: str, asks_ready: bool) -> HttpAnswer:
        if not asks_ready:
            return _json(self._oip.model_metadata(name, version))
        self._oip.model(name, version)
        return self._ready({"name": name})

    def _ready(self, subject: dict[str, str]) -> HttpAnswer:
        is_ready = self._oip.is_ready
        return _json({**subject, "ready": is_ready}, 200 if is_ready else 503)

    def _infer(self, request: HttpRequest, model: str, version: str) -> HttpAnswer:
        with self._metrics.request("oip-http"):
            self._oip.model(model, version)
            return self._workers.call(partial(self._run, request, model, time.monotonic()), request.has_left)

    def _run(self, request: HttpRequest, model: str, arrival: float) -> HttpAnswer:
        asked = oip_json.decode_request(request.content(self._limits.body_bytes), _json_size(request))
        head, *arrays = self._oip.infer(model, asked, None, arrival, oip_json.encode_response)
        if not arrays:
            return HttpAnswer(200, _JSON, [head]).packed_for(request)
        return HttpAnswer(200, _BINARY, [head, *arrays], {_JSON_SIZE: str(len(head))}).packed_for(request)


def _json_size(request: HttpRequest) -> int | None:
    size = request.headers.get(_JSON_SIZE)
    if size is None:
        return None
    if not (size.isascii() and size.isdigit() and len(size) <= _MAX_DIGITS):
        raise BadInput("Inference-Header-Content-Length must be the number of bytes of the JSON.")
    return int(size)


def _json(message: Any, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, _JSON, [msgspec.json.encode(message)])
