"""The HTTP server: waitress, set up so that slow clients hold up nobody."""

from __future__ import annotations

import errno
import socket
from http import HTTPStatus

import waitress.server
from flask import Flask
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from ocr_serving.errors import BadInput, ConfigError, OcrServingError
from ocr_serving.settings import Settings
from ocr_serving.web import errors


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address but not listening: clients are refused until serve() is ready for them.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    return bound


def serve(app: Flask, bound: socket.socket, settings: Settings) -> waitress.server.TcpWSGIServer:
    """A server that listens on the bound socket; its run() answers requests until SIGINT or SystemExit.

    Raises:
        ConfigError: another process has taken the port since bind().
    """
    try:
        server = waitress.server.create_server(
            app,
            sockets=[bound],
            threads=settings.http_threads,
            ident=None,
            recv_bytes=262144,
            connection_limit=1000,  # at waitress's 100, as many idle clients block everyone
            channel_timeout=30,
            asyncore_use_poll=True,  # select() ends at 1024 descriptors
            inbuf_overflow=settings.max_body_bytes + 1,  # images stay in memory, never in a temporary file
            max_request_body_size=settings.max_body_bytes + 1,  # waitress refuses from this size on
        )
    except OSError as error:
        raise _cannot_listen(settings.host, settings.port, error) from error
    server.channel_class = _Channel
    return server


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"Port {port} on {host} is taken by another process; choose another with --port.")
    return ConfigError(f"Cannot listen on {host} port {port}: {error.strerror}.")


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers what waitress itself refuses, before the app sees it, in the form of our errors."""

    def execute(self) -> None:
        refused = self.request.error
        if refused.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            error: OcrServingError = errors.body_too_large(self.channel.server.adj.max_request_body_size - 1)
        elif refused.code < 500:
            error = BadInput(f"The request is not valid HTTP: {refused.reason}.")
        else:
            error = OcrServingError(f"The request cannot be served: {refused.reason}.")
        body = errors.body(error.code, error.message)
        self.status = f"{refused.code} {refused.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    error_task_class = _ErrorTask
