"""GeneralModelService over HTTP: protobuf or JSON in, the same out."""

from __future__ import annotations

from functools import partial

from ocr_serving.errors import BadInput, OcrServingError, TooLarge
from ocr_serving.server import general_model
from ocr_serving.server.http import HttpAnswer, HttpRequest
from ocr_serving.server.limits import Limits
from ocr_serving.server.service import ModelService
from ocr_serving.server.workers import Workers
from ocr_serving.wire import json_form, messages, meta

PATHS = frozenset(f"/{service}/{method}" for service in (meta.SERVICE, meta.SHORT_SERVICE) for method in meta.METHODS)
TEXT = "text/plain"
_PROTOBUF = ("application/proto", "application/x-protobuf")
_JSON = "application/json"
_REQUEST = "baidu.paddle_serving.predictor.general_model.Request"


class GeneralModelRoute:
    """Answers POST and, as brpc, every other method on PATHS. See http.Route."""

    def __init__(self, service: ModelService, workers: Workers, limits: Limits, address: str) -> None:
        """Answer for a service; `address` is the server's, with which error texts begin."""
        self._service = service
        self._workers = workers
        self._limits = limits
        self._address = address

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """A Response in the form of the request; every content type but protobuf's is taken for JSON, as in brpc."""
        with self._service.metrics.request("http"):
            return self._workers.call(partial(self._infer, request), request.has_left)

    def refuse(self, error: OcrServingError) -> HttpAnswer:
        """See refusal()."""
        return refusal(error, self._address)

    def _infer(self, request: HttpRequest) -> HttpAnswer:
        is_protobuf = request.content_type in _PROTOBUF or request.content_type.startswith("application/grpc")
        message = _parse(request, is_protobuf, self._limits.body_bytes)
        if is_protobuf:
            body = general_model.answer(self._service, message, None, messages.encode_response)
        else:
            body = [general_model.answer(self._service, message, None, json_form.encode_response)]
        return HttpAnswer(200, request.headers.get("content-type") or _JSON, body).packed_for(request)


def refusal(error: OcrServingError, address: str) -> HttpAnswer:
    """What brpc answers for an error: its text and its code."""
    text = meta.error_text(error, address).encode()
    return HttpAnswer(error.status, TEXT, [text], {"x-bd-error-code": str(error.brpc_code)})


def _parse(request: HttpRequest, is_protobuf: bool, limit: int) -> messages.Request:
    content = request.content(limit)
    try:
        return messages.decode_request(content) if is_protobuf else json_form.decode_request(content)
    except TooLarge:
        raise
    except BadInput as error:
        detail = "" if is_protobuf else f", {error}"
        raise BadInput(f"Fail to parse http body as {_REQUEST}{detail}") from error
