"""The WSGI layer that lets requests through a Gate, each with its deadline."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, OcrServingError
from ocr_serving.web import errors, exchange
from ocr_serving.web.gate import Gate

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEADER = "X-Request-Timeout"
"""Seconds for which the client waits for its answer."""
LEAST_SECONDS = 0.1
"""No image can be asked to be read in less."""
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


class Admission:
    """Lets the requests to one path through the gate; nothing of them is read before. Others do not pass it."""

    def __init__(self, app: WSGIApplication, gate: Gate, path: str, longest: float) -> None:
        """
        Args:
            app: answers the requests.
            gate: decides whose turn it is.
            path: the path whose POST requests take the engines' time.
            longest: most seconds a request may take.
        """
        self._app = app
        self._gate = gate
        self._path = exchange.wsgi_path(path)
        self._longest = longest

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        if environ.get("PATH_INFO") != self._path or environ.get("REQUEST_METHOD") != "POST":
            return self._app(environ, start_response)
        this = exchange.of(environ)
        try:
            this.deadline = self._deadline(environ, this.began)
            with this.timings.stage("queue"):
                started = self._gate.enter(this.deadline, this.tenant)
        except OcrServingError as error:
            return errors.to_response(error, this)(environ, start_response)
        try:
            return self._app(environ, start_response)
        finally:
            self._gate.leave(started, this.images)

    def _deadline(self, environ: WSGIEnvironment, began: float) -> Deadline:
        """When the request is given up.

        Raises:
            BadInput: the header is no number of seconds, or too small a one.
        """
        text = environ.get(f"HTTP_{HEADER.upper().replace('-', '_')}")
        seconds = self._longest
        if text is not None:
            seconds = float(text) if _NUMBER.fullmatch(text) else 0.0
            if seconds < LEAST_SECONDS:
                raise BadInput(f"{HEADER} must be a number of seconds, at least {LEAST_SECONDS}; for example 2.5.")
        has_left = environ.get("waitress.client_disconnected", lambda: False)
        return Deadline(began + min(seconds, self._longest), has_left)
