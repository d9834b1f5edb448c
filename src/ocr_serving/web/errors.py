"""The one place where errors become HTTP answers: {"error": {"code", "message"}}."""

from __future__ import annotations

import json
import logging

from flask import Flask, request
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoSuchPath
from werkzeug.wrappers import Response

from ocr_serving.errors import BadInput, NotFound, OcrServingError, TooLarge, Unauthenticated
from ocr_serving.web import exchange
from ocr_serving.web.exchange import Exchange

logger = logging.getLogger(__name__)


def register(app: Flask, path: str) -> None:
    """Let the app, whose main path is this, answer every error with JSON."""

    def translate(error: Exception) -> Response:
        if isinstance(error, NoSuchPath):
            error = NotFound(f"There is no such path; this service answers POST {path}.")
        return to_response(error, exchange.of(request.environ))

    app.register_error_handler(Exception, translate)


def to_response(error: Exception, this: Exchange) -> Response:
    """The answer to an error: ours as they say, Werkzeug's in our words, any other 500 with its trace in the log."""
    status, code, message, headers = _said(error)
    this.code = code
    return Response(body(code, message), status, headers, content_type="application/json")


def _said(error: Exception) -> tuple[int, str, str, dict[str, str]]:
    """Status, code, message and headers of the answer to an error."""
    if isinstance(error, OcrServingError):
        if error.status >= 500:
            logger.warning("answered %d: %s", error.status, error)
        return error.status, error.code, str(error), headers_of(error)
    if isinstance(error, MethodNotAllowed):
        allowed = sorted(error.valid_methods or ())
        main = ", ".join(method for method in allowed if method not in ("HEAD", "OPTIONS"))
        message = f"This path takes {main} requests."
        return 405, "METHOD_NOT_ALLOWED", message, {"Allow": ", ".join(allowed)}
    if isinstance(error, HTTPException) and not isinstance(error, InternalServerError):
        return error.code or 500, BadInput.code, error.description or "The request cannot be understood.", {}
    # Flask wraps what happens after the view: an answer that cannot be put into JSON.
    cause = error.original_exception if isinstance(error, InternalServerError) else None
    logger.error("answered 500: unexpected error", exc_info=cause or error)
    return 500, OcrServingError.code, "The service failed on this request; the server's log says why.", {}


def headers_of(error: OcrServingError) -> dict[str, str]:
    """What the answer to an error says besides its body."""
    headers = {}
    if error.retryable:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def body_too_large(max_body_bytes: int) -> TooLarge:
    """The error for a body over the limit, wherever it is noticed."""
    return TooLarge(f"The body is too large; at most {max_body_bytes} bytes are accepted (max_body_bytes).")


def body(code: str, message: str) -> bytes:
    """The bytes of an error's answer."""
    return json.dumps({"error": {"code": code, "message": message}}, separators=(",", ":")).encode("ascii") + b"\n"
