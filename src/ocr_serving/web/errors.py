"""The one place where errors become HTTP answers: {"error": {"code", "message"}}."""

from __future__ import annotations

import json
import logging

from flask import Flask, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.exceptions import NotFound as NoSuchPath

from ocr_serving.errors import BadInput, NotFound, OcrServingError, TooLarge

logger = logging.getLogger(__name__)


def register(app: Flask, path: str, max_body_bytes: int) -> None:
    """Let the app, whose one path takes bodies up to a limit, answer every error with JSON."""

    def translate(error: Exception) -> Response:
        return to_response(error, path, max_body_bytes)

    app.register_error_handler(Exception, translate)


def to_response(error: Exception, path: str, max_body_bytes: int) -> Response:
    """The answer to an error: ours as they say, Werkzeug's in our words, any other 500 with its trace in the log."""
    if isinstance(error, RequestEntityTooLarge):
        error = body_too_large(max_body_bytes)
    elif isinstance(error, NoSuchPath):
        error = NotFound(f"There is no such path; this service answers POST {path}.")
    if isinstance(error, OcrServingError):
        if error.status >= 500:
            logger.warning("answered %d: %s", error.status, error)
        return _response(error.status, error.code, error.message)
    if isinstance(error, MethodNotAllowed):
        allow = {"Allow": ", ".join(error.valid_methods or ())}
        return _response(405, "METHOD_NOT_ALLOWED", "This path takes POST requests.", allow)
    if isinstance(error, HTTPException):
        return _response(error.code or 500, BadInput.code, error.description or "The request cannot be understood.")
    logger.error("answered 500: unexpected error", exc_info=error)
    return _response(500, OcrServingError.code, "The service failed on this request; the server's log says why.")


def body_too_large(max_body_bytes: int) -> TooLarge:
    """The error for a body over the limit, wherever it is noticed."""
    return TooLarge(f"The body is too large; at most {max_body_bytes} bytes are accepted (max_body_bytes).")


def body(code: str, message: str) -> bytes:
    """The bytes of an error's answer."""
    return json.dumps({"error": {"code": code, "message": message}}, separators=(",", ":")).encode("ascii") + b"\n"


def _response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return Response(body(code, message), status, headers, content_type="application/json")
