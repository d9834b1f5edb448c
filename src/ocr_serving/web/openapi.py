"""The OpenAPI 3.1 document of a web service, as served at /openapi.json."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from ocr_serving import request_id
from ocr_serving.settings import Settings
from ocr_serving.web import admission
from ocr_serving.web.services import DEFAULT_NAMES, Service

LIVE, READY, METRICS, OPENAPI = "/health/live", "/health/ready", "/metrics", "/openapi.json"
"""Paths that every service has besides its own."""

Schema = dict[str, Any]

_QUAD: Schema = {
    "description": "x, y in pixels of the image after its EXIF rotation, clockwise from top-left",
    "type": "array",
    "minItems": 4,
    "maxItems": 4,
    "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
}
_OUTPUTS: Schema = {
    "res": {"description": "texts, in reading order", "type": "array", "items": {"type": "string"}},
    "dt_boxes": {"description": "the texts' boxes", "type": "array", "items": _QUAD},
    "scores": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}},
}
_FAULT: Schema = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
}
_ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": _FAULT}}
_ERRORS: Schema = {
    "description": "images (index) or boxes (box) that could not be read, though the others were",
    "type": "array",
    "items": {
        **_FAULT,
        "properties": {**_FAULT["properties"], "index": {"type": "integer", "minimum": 0}, "box": _QUAD},
    },
}
_HEADERS = {
    request_id.HEADER: {"description": "the request's, or a new one", "schema": {"type": "string"}},
    "Server-Timing": {"description": "milliseconds of each stage", "schema": {"type": "string"}},
}
_RETRY = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
_REFUSALS = {
    HTTPStatus.BAD_REQUEST: "The body, a header or the only image cannot be read",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is over the limit",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Too many images, or the only image has too many pixels",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The service failed",
    HTTPStatus.BAD_GATEWAY: "A model server answered nonsense",
    HTTPStatus.SERVICE_UNAVAILABLE: "Busy, shutting down, or a model server does not answer; try again",
    HTTPStatus.GATEWAY_TIMEOUT: "The request's time ran out",
}
_FAULTS: Schema = {
    "type": "object",
    "required": ["status", "faults"],
    "properties": {
        "status": {"enum": ["ready", "not ready", "shutting down"]},
        "faults": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def result_of(service: Service) -> Schema:
    """The schema of a service's "result"."""
    one = {
        "type": "object",
        "required": list(service.defaults),
        "properties": {name: _OUTPUTS[name] for name in (*service.defaults, *service.extras)} | {"errors": _ERRORS},
        "additionalProperties": False,
    }
    if service.merges:
        return one
    several = {"type": "array", "items": {"anyOf": [one, _ERROR]}}
    return {"anyOf": [one, {"description": "of several images, each in its place", **several}]}


def form_of(service: Service, max_images: int) -> Schema:
    """The schema of the bodies that a service takes."""
    image = {"description": "base64 of an image file", "type": "string", "format": "byte", "minLength": 4}
    item = {"type": "object", "required": ["x"], "properties": {"x": image}}
    names = {"enum": list(dict.fromkeys((*DEFAULT_NAMES, *service.defaults, *service.extras)))}
    fetch = {"description": "outputs wanted besides the service's own", "type": "array", "items": names}
    return {
        "type": "object",
        "required": ["feed", "fetch"],
        "properties": {"feed": {"type": "array", "minItems": 1, "maxItems": max_images, "items": item}, "fetch": fetch},
    }


def document(path: str, form: Schema, result: Schema, settings: Settings) -> Schema:
    """The document of a service that answers POST requests of one path.

    Args:
        path: where.
        form: JSON schema of the request's body.
        result: JSON schema of the answer's "result".
        settings: limits, and whether there are API keys.
    """
    locked = bool(settings.api_keys)
    probes_locked = locked and not settings.public_metrics
    paths = {
        path: {"post": _prediction(form, result, settings)},
        LIVE: {"get": _probe("Whether the process answers", _json({"type": "object"}), False)},
        READY: {"get": _probe("Whether a request would be answered now", _json(_FAULTS), probes_locked)},
        METRICS: {"get": _probe("Metrics for Prometheus", {"text/plain": {}}, probes_locked)},
        OPENAPI: {"get": _probe("This document", _json({"type": "object"}), probes_locked)},
    }
    paths[READY]["get"]["responses"]["503"] = {"description": "It would not", "content": _json(_FAULTS)}
    scheme = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}} if locked else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "OCR serving", "version": version("ocr-serving")},
        "paths": paths,
        "components": scheme,
    }


def _prediction(form: Schema, result: Schema, settings: Settings) -> Schema:
    answer = {"type": "object", "required": ["result"], "properties": {"result": result}}
    responses = {"200": {"description": "What was read", "headers": _HEADERS, "content": _json(answer)}}
    for status, why in _REFUSALS.items():
        headers = _HEADERS | (_RETRY if status == HTTPStatus.SERVICE_UNAVAILABLE else {})
        responses[str(status.value)] = {"description": why, "headers": headers, "content": _json(_ERROR)}
    return {
        "summary": "Read images",
        "parameters": [
            {
                "name": admission.HEADER,
                "in": "header",
                "description": f"seconds the client waits, at most {settings.request_timeout:g}",
                "schema": {"type": "number", "minimum": admission.LEAST_SECONDS},
            },
            {"name": request_id.HEADER, "in": "header", "schema": {"type": "string"}},
        ],
        "requestBody": {"required": True, "content": _json(form)},
        "responses": responses | _unauthenticated(bool(settings.api_keys)),
        **({"security": [{"key": []}]} if settings.api_keys else {}),
    }


def _probe(summary: str, content: Schema, locked: bool) -> Schema:
    good = {"200": {"description": summary, "headers": _HEADERS, "content": content}}
    return {"summary": summary, "responses": good | _unauthenticated(locked)} | (
        {"security": [{"key": []}]} if locked else {}
    )


def _unauthenticated(locked: bool) -> Schema:
    refusal = {"description": "No API key, or an unknown one", "headers": _HEADERS, "content": _json(_ERROR)}
    return {str(HTTPStatus.UNAUTHORIZED.value): refusal} if locked else {}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}
