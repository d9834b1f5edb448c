"""The error tree: what went wrong, in one sentence that a user may read.

bytes -> [BadInput] -> request -> [Overloaded, DeadlineExceeded] -> engine -> [EngineFailed] -> answer
                                  remote engine -> [UpstreamUnavailable, BadUpstream]
start -> [ConfigError]

Every class carries a stable `code`, the HTTP `status` and the bRPC `brpc_code` it is answered with; mapping an error to
an answer is therefore data. Of a `retryable` one, `retry_after` says after how many seconds it is worth trying again.
Messages never hold a trace, a path of the server, or the caller's data.
"""

from __future__ import annotations

from typing import ClassVar


class OcrServingError(Exception):
    """Base of every error this package raises on purpose; by itself, a fault of ours."""

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500
    brpc_code: ClassVar[int] = -5000
    retryable: ClassVar[bool] = False
    retry_after: int = 1


class BadInput(OcrServingError):
    """The caller sent something that no service could answer."""

    code = "INVALID_ARGUMENT"
    status = 400
    brpc_code = 1003


class Unauthenticated(BadInput):
    """The caller gave no API key, or an unknown one."""

    code = "UNAUTHENTICATED"
    status = 401


class NotFound(BadInput):
    """The caller named a route, service, method or model that does not exist."""

    code = "NOT_FOUND"
    status = 404
    brpc_code = 1002


class TooLarge(BadInput):
    """More bytes than a limit allows; the message names the limit."""

    code = "PAYLOAD_TOO_LARGE"
    status = 413


class LimitExceeded(BadInput):
    """Well formed, but more pixels, images or boxes than a limit allows; the message names the limit."""

    code = "LIMIT_EXCEEDED"
    status = 422


class Overloaded(OcrServingError):
    """No room in the queue now; worth trying again."""

    code = "OVERLOADED"
    status = 503
    brpc_code = 2004
    retryable = True


class ShuttingDown(OcrServingError):
    """The server drains and takes no new work; worth trying another one."""

    code = "SHUTTING_DOWN"
    status = 503
    brpc_code = 2003
    retryable = True


class DeadlineExceeded(OcrServingError):
    """The request's time ran out before its answer was ready."""

    code = "DEADLINE_EXCEEDED"
    status = 504
    brpc_code = 1008


class ClientLeft(OcrServingError):
    """The client closed the connection, so nobody waits for the answer."""

    code = "CLIENT_LEFT"
    status = 499  # nginx's; nobody sees it but logs and metrics


class UpstreamUnavailable(OcrServingError):
    """A model server that this service needs does not answer; worth trying again."""

    code = "UPSTREAM_UNAVAILABLE"
    status = 503
    brpc_code = 112
    retryable = True


class BadUpstream(OcrServingError):
    """A model server answered, but not what its protocol or its model promises."""

    code = "BAD_UPSTREAM"
    status = 502


class EngineFailed(OcrServingError):
    """The inference engine failed on this input."""

    code = "ENGINE_FAILED"
    status = 500
    brpc_code = -5100


class ConfigError(OcrServingError):
    """A setting, model folder, port or package is wrong or missing; the process ends with status 2."""

    code = "CONFIG"
