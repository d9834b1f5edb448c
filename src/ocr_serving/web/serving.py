"""The HTTP server: waitress, set up so that slow clients hold up nobody, and drained at the end."""

from __future__ import annotations

import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from types import FrameType
from typing import Any

import waitress.server
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask

from ocr_serving import allocator, command_line, endpoint, open_files, request_id
from ocr_serving.errors import BadInput, ConfigError, OcrServingError, Overloaded
from ocr_serving.settings import Settings
from ocr_serving.web import errors, exchange
from ocr_serving.web.app import App
from ocr_serving.web.http_parser import FRAMING, Parser, Refused

logger = logging.getLogger(__name__)

SPARE_THREADS = 8
"""Threads beyond those of requests that run or wait: for probes, metrics and refusals, which take a moment each."""
CONNECTIONS = 1000
"""Most open connections; at waitress's 100, as many idle clients block everyone."""
_LEAST_FILES = 2 * open_files.OTHERS
_HEADER_BYTES = 65536
_IDLE_SECONDS = 30
_CLEANUP_SECONDS = 5.0
"""Idle connections are looked for this often."""
_POLL_SECONDS = 1.0
_LINGER_SECONDS = 2.0
"""How long a client that was turned away may go on sending, which nobody reads."""
_SENT_AHEAD = 8
"""Requests that a client may send before it has the answer to its first; all that come at once are parsed at once."""
_ACCEPTED_AT_ONCE = 64
"""Waitress accepts one connection, then asks all that are open what they want: hundreds that come together wait."""


class Server:
    """A listening app."""

    def __init__(self, app: App, bound: socket.socket, settings: Settings) -> None:
        """Listen on the bound socket; nobody is answered before run().

        Raises:
            ConfigError: another process has taken the port since it was bound, or too few files may be opened.
        """
        self._app = app
        allocator.keep_freed()
        allocator.reserve_for_products()
        self._drain_seconds = settings.drain_seconds
        self._drain_until: float | None = None
        self._map: dict[int, Any] = {}
        try:
            self._waitress = waitress.server.create_server(
                app,
                map=self._map,
                sockets=[bound],
                threads=app.gate.room + SPARE_THREADS,
                ident=None,
                recv_bytes=262144,
                connection_limit=_connections(),
                channel_timeout=_IDLE_SECONDS,
                channel_request_lookahead=1,  # else it does not notice clients that leave
                asyncore_use_poll=True,  # select() ends at 1024 descriptors
                max_request_header_size=_HEADER_BYTES,
                inbuf_overflow=settings.max_body_bytes + 1,  # images stay in memory, never in a temporary file,
                outbuf_overflow=sys.maxsize,  # and so do answers
                max_request_body_size=3 * settings.max_body_bytes + FRAMING,  # Parser refuses what is over the limit
            )
        except OSError as error:
            raise endpoint.cannot_listen(endpoint.of_socket(bound), error) from error
        except RuntimeError as error:  # out of threads, or of memory for their stacks
            raise ConfigError(
                f"This process cannot start its {app.gate.room + SPARE_THREADS} threads; allow it more of them, or "
                "more memory, or choose a smaller max_queued."
            ) from error
        self._waitress.channel_class = _Channel
        self._waitress.handle_accept = self._accept
        self._waitress.next_channel_cleanup = math.inf  # run() does it: waitress goes by the wall clock, which may jump
        self._waitress.ours = app  # waitress wraps its own `application`
        self._waitress.limits = settings
        _warn_if_open(settings.host, settings.api_keys)

    def run(self) -> bool:
        """Answer requests until drain() is called, and those that had been accepted; returns whether all were."""
        cleaned = time.monotonic()
        while not self._is_over():
            wasyncore.loop(_POLL_SECONDS, use_poll=True, map=self._map, count=1)
            if time.monotonic() - cleaned > _CLEANUP_SECONDS:
                cleaned = time.monotonic()
                self._waitress.maintenance(cleaned)
                for channel in list(self._waitress.active_channels.values()):
                    channel.close_if_stuck()
            if self._drain_until is not None and not self._app.gate.running and not self._app.gate.queued:
                self._waitress.accepting = False  # clients that come again and again to be refused would prolong it
        drained = self._is_idle()
        self._waitress.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._map)
        return drained

    def run_until_told(self) -> None:
        """Answer requests until SIGTERM or SIGINT, then those that had been accepted; a second signal ends at once."""

        def told(number: int, frame: FrameType | None) -> None:
            self.drain()
            _on_signals(command_line.end_at_once)

        _on_signals(told)
        if not self.run():
            logger.warning("Not all requests could be answered within %g s (drain_seconds).", self._drain_seconds)
            logging.shutdown()
            command_line.end_at_once(0)  # threads are still at work, and the interpreter would wait for them

    def drain(self) -> None:
        """Let run() end when what has been accepted is answered; a signal handler may call this."""
        self._app.gate.closed = True
        self._drain_until = time.monotonic() + self._drain_seconds
        with suppress(OSError):  # it is over already
            self._waitress.pull_trigger()

    def _accept(self) -> None:
        """Accept connections until none waits, or as many are open as may be."""
        accept_one = type(self._waitress).handle_accept
        for _ in range(_ACCEPTED_AT_ONCE):
            before = len(self._map)
            accept_one(self._waitress)
            if len(self._map) == before or not self._waitress.readable():
                return

    def _is_over(self) -> bool:
        return self._drain_until is not None and (self._is_idle() or time.monotonic() > self._drain_until)

    def _is_idle(self) -> bool:
        channels = list(self._waitress.active_channels.values())
        return not any(channel.requests or channel.total_outbufs_len for channel in channels)


def _warn_if_open(host: str, api_keys: Sequence[str]) -> None:
    if not endpoint.is_loopback(host) and not api_keys:
        logger.warning("The service listens on %s and asks for no API key: who reaches it can use it.", host)


def _on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def _connections() -> int:
    """How many may be open.

    Raises:
        ConfigError: the process may open too few files.
    """
    wanted = CONNECTIONS + open_files.OTHERS
    files = open_files.allow(wanted)
    if files < min(wanted, _LEAST_FILES):
        raise ConfigError(f"This process may open {files} files only; allow {_LEAST_FILES} or more: ulimit -n 1024.")
    return files - open_files.OTHERS


class _Task(WSGITask):  # type: ignore[misc]
    """Answers a request with the app."""

    def start(self) -> None:
        super().start()
        if self.channel.server.ours.gate.closed:
            self.set_close_on_finish()  # so that the client's next request goes elsewhere


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers what is refused before the app sees it, in the form of our errors."""

    def execute(self) -> None:
        begin = time.monotonic()
        error = self._error(self.request.error)
        status = error.status if isinstance(self.request.error, Refused) else self.request.error.code
        body = errors.body(error.code, str(error))
        identity = request_id.accept(self.request.headers.get("X_REQUEST_ID"))
        self.status = f"{status} {HTTPStatus(status).phrase}"
        self.response_headers += errors.headers_of(error).items()
        self.response_headers += [("Content-Type", "application/json"), (request_id.HEADER, identity)]
        self.set_close_on_finish()
        self.channel.turns_away = isinstance(self.request.error, Refused)
        self.content_length = len(body)
        self.write(body)
        with request_id.working_on(identity):
            self.channel.server.ours.metrics.answered("malformed", status, time.monotonic() - begin, {})
            exchange.log_line(logging.INFO, "other", "malformed", status, time.monotonic() - begin, error.code)

    def _error(self, refused: Any) -> OcrServingError:
        if isinstance(refused, Refused):
            return refused.error
        if refused.code == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return BadInput(f"The request's headers take more than {_HEADER_BYTES} bytes.")
        if refused.code < 500:
            return BadInput(f"The request is not valid HTTP: {refused.reason}.")
        return OcrServingError(f"The request cannot be served: {refused.reason}.")


class _WithoutPaths(logging.LoggerAdapter):  # type: ignore[type-arg]  # Python 3.10 takes no argument
    """Waitress's logger, without the paths as clients sent them."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return str(msg).partition(" while serving ")[0] + ".", kwargs


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A client's connection.

    Attributes:
        turns_away: whether the latest answer refuses a request of which more may come.
    """

    turns_away = False
    _ends_at: float | None = None  # once a client that was turned away has its answer
    logger = _WithoutPaths(HTTPChannel.logger, {})
    task_class = _Task
    error_task_class = _ErrorTask

    @property
    def last_activity(self) -> float:
        """When something was last received or sent, by the clock that never jumps."""
        return self._last_activity

    @last_activity.setter
    def last_activity(self, wall_clock: float) -> None:
        self._last_activity = time.monotonic()

    def parser_class(self, adj: Any) -> Parser:
        too_many = len(self.requests) > _SENT_AHEAD
        fault = BadInput(f"At most {_SENT_AHEAD} requests may be sent ahead of an answer.") if too_many else None
        return Parser(adj, self.server.limits.max_body_bytes, self._no_room, fault)

    def handle_close(self) -> None:
        """Close; but let a client that is still sending read its answer first: bytes left unread would reset it."""
        if self.turns_away and self._ends_at is None:
            self._ends_at = time.monotonic() + _LINGER_SECONDS
            self.will_close = False
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                return
        super().handle_close()

    def handle_read(self) -> None:
        if self._ends_at is None:
            super().handle_read()
        elif time.monotonic() > self._ends_at:
            self.handle_close()
        else:
            try:
                self.recv(self.adj.recv_bytes)
            except OSError:
                self.handle_close()

    def readable(self) -> bool:
        if self._ends_at is not None:
            return True
        if self.request is not None and self.request.is_stalled():
            self.will_close = True
        return bool(super().readable())

    def close_if_stuck(self) -> None:
        """Close a client that takes nothing of its answer, or does not leave though it was turned away.

        Waitress would wait for it, maybe with a thread.
        """
        if self._ends_at is not None and time.monotonic() > self._ends_at:
            self.handle_close()
        if self.total_outbufs_len and time.monotonic() - self.last_activity > _IDLE_SECONDS:
            self.handle_close()

    def _no_room(self) -> Overloaded | None:
        """What to answer if the bodies in memory are over the limit."""
        limit = self.server.limits.max_buffered_bytes
        if sum(_held(channel) for channel in list(self.server.active_channels.values())) <= limit:
            return None
        return Overloaded(f"The service holds as many request bodies as it may: {limit} bytes (max_buffered_bytes).")


def _held(channel: _Channel) -> int:
    """Bytes that have come of the bodies of a connection's requests; what is announced costs its sender nothing."""
    requests = [channel.request, *channel.requests]
    return sum(request.body_bytes_received for request in requests if request is not None)
