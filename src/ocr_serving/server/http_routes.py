"""Which part of the model server answers which HTTP path."""

from __future__ import annotations

from ocr_serving.errors import OcrServingError
from ocr_serving.server import http_general_model
from ocr_serving.server.http import HttpAnswer, Route
from ocr_serving.server.http_general_model import GeneralModelRoute
from ocr_serving.server.http_pages import PagesRoute
from ocr_serving.server.limits import Limits
from ocr_serving.server.oip_http import OipRoute
from ocr_serving.server.service import ModelService
from ocr_serving.server.workers import Workers


class Routes:
    """All routes of a server. Thread-safe."""

    def __init__(self, service: ModelService, workers: Workers, limits: Limits, address: str) -> None:
        """Offer a service; `address` is the server's, with which brpc's error texts begin."""
        self._general_model = GeneralModelRoute(service, workers, limits, address)
        self._oip = OipRoute(service, workers, limits)
        self._pages = PagesRoute(service, address)

    def find(self, path: str) -> Route:
        """Who answers there, if only to say that there is no such path."""
        if path in http_general_model.PATHS:
            return self._general_model
        if path == "/v2" or path.startswith("/v2/"):
            return self._oip
        return self._pages

    def refuse(self, error: OcrServingError) -> HttpAnswer:
        """The answer to what never became a request."""
        return self._pages.refuse(error)
