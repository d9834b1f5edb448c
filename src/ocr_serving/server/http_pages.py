"""The pages that a person, a probe or a monitor opens on a model server's port."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from ocr_serving.errors import NotFound, OcrServingError
from ocr_serving.server import metrics
from ocr_serving.server.http import HttpAnswer, HttpRequest
from ocr_serving.server.http_general_model import TEXT, refusal
from ocr_serving.server.service import ModelService
from ocr_serving.wire import meta

SERVER = "ocr-serving"
"""The name this server goes by."""

_SHORT_PATH = f"/{meta.SHORT_SERVICE}/{meta.INFERENCE}"


def server_version() -> str:
    """The installed package's."""
    return version(SERVER)


class PagesRoute:
    """brpc's built-in pages, as far as they say something here; any other path is not found. See http.Route."""

    def __init__(self, service: ModelService, address: str) -> None:
        """Tell about a service; `address` is the server's, with which error texts begin."""
        self._service = service
        self._address = address
        self._pages: dict[str, Callable[[], HttpAnswer]] = {
            "/": self._index,
            "/health": lambda: _text("OK"),
            "/version": lambda: _text(f"{SERVER} {server_version()}"),
            "/status": self._status,
            "/brpc_metrics": lambda: HttpAnswer(200, metrics.CONTENT_TYPE, [service.metrics.page()]),
        }

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """The page at the path, for any method."""
        page = self._pages.get(request.path)
        if page is None:
            raise NotFound("Fail to find method on this path; / lists the paths of this server")
        return page()

    def refuse(self, error: OcrServingError) -> HttpAnswer:
        """See http_general_model.refusal."""
        return refusal(error, self._address)

    def _index(self) -> HttpAnswer:
        return _text("\n".join([f"{SERVER} {server_version()}", *self._pages, _SHORT_PATH, "/v2"]))

    def _status(self) -> HttpAnswer:
        return _text("\n".join([f"version: {server_version()}", f"models: {', '.join(self._service.models)}"]))


def _text(text: str) -> HttpAnswer:
    return HttpAnswer(200, TEXT, [text.encode()])
