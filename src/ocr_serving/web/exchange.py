"""One HTTP request and its answer, as operators see it: its id, its times, its log line, its place in the metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocr_serving import logs, request_id
from ocr_serving.deadline import Deadline
from ocr_serving.timings import Timings
from ocr_serving.web.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_KEY = "ocr_serving.exchange"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Methods that are logged by name."""


@dataclass
class Exchange:
    """What the layers of the app know of a request.

    Attributes:
        id: of the request, as answered in X-Request-Id.
        route: its path if the app has that, else "other".
        began: when it had been received, as of time.monotonic().
        tenant: whose API key it came with, "" without.
        deadline: when it is given up; set before it is worked on.
        images: how many it holds, 1 until it is read.
        status: of the answer.
        code: of the error that is answered, "" if there is none.
        timings: of its stages.
    """

    id: str
    route: str
    began: float = field(default_factory=time.monotonic)
    tenant: str = ""
    deadline: Deadline | None = None
    images: int = 1
    status: int = 0
    code: str = ""
    timings: Timings = field(default_factory=Timings)

    def headers(self) -> list[tuple[str, str]]:
        """X-Request-Id, and Server-Timing with the stages and the total up to now, in milliseconds."""
        times = {**self.timings.seconds, "total": time.monotonic() - self.began}
        timing = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in times.items())
        return [(request_id.HEADER, self.id), ("Server-Timing", timing)]


def of(environ: WSGIEnvironment) -> Exchange:
    """The exchange that a request belongs to."""
    exchange: Exchange = environ[_KEY]
    return exchange


def wsgi_path(path: str) -> str:
    """A path as PATH_INFO has it: its bytes taken for latin-1 (PEP 3333)."""
    return path.encode().decode("latin-1")


class Exchanges:
    """WSGI layer that begins and ends the exchange of every request."""

    def __init__(self, app: WSGIApplication, metrics: Metrics, routes: Iterable[str], quiet: Iterable[str]) -> None:
        """
        Args:
            app: answers the requests.
            metrics: counts them.
            routes: the app's paths; all others are one in metrics and logs.
            quiet: those whose log lines are of level DEBUG.
        """
        self._app = app
        self._metrics = metrics
        self._routes = {wsgi_path(route): route for route in routes}
        self._quiet = frozenset(quiet)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        route = self._routes.get(environ.get("PATH_INFO", ""), "other")
        exchange = Exchange(request_id.accept(environ.get("HTTP_X_REQUEST_ID")), route)
        environ[_KEY] = exchange

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            exchange.status = int(status[:3])
            return start_response(status, [*headers, *exchange.headers()], *exc_info)

        with request_id.working_on(exchange.id):
            try:
                return self._app(environ, start)
            finally:
                self._end(exchange, environ.get("REQUEST_METHOD", ""))

    def _end(self, exchange: Exchange, method: str) -> None:
        seconds = time.monotonic() - exchange.began
        self._metrics.answered(exchange.route, exchange.status, seconds, exchange.timings.seconds)
        log_line(
            logging.DEBUG if exchange.route in self._quiet else logging.INFO,
            method if method in _METHODS else "other",
            exchange.route,
            exchange.status,
            seconds,
            exchange.code,
            {"tenant": exchange.tenant, "stages_ms": exchange.timings.milliseconds()},
        )


def log_line(
    level: int,
    method: str,
    route: str,
    status: int,
    seconds: float,
    code: str,
    more: Mapping[str, object] | None = None,
) -> None:
    """Log one request, with the code of its error, if any."""
    ms = round(1000 * seconds, 1)
    about = {"method": method, "route": route, "status": status, "code": code, "ms": ms, **(more or {})}
    outcome = f"{status} {code}".rstrip()
    logs.access.log(level, "%s %s %s in %.1f ms", method, route, outcome, ms, extra=logs.fields(**about))
