"""The HTTP server: waitress, set up so that slow clients hold up nobody."""

from __future__ import annotations

import socket
from http import HTTPStatus

import waitress.server
from flask import Flask
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from ocr_serving import endpoint
from ocr_serving.errors import BadInput, OcrServingError
from ocr_serving.settings import Settings
from ocr_serving.web import errors


def listen(app: Flask, bound: socket.socket, settings: Settings) -> waitress.server.TcpWSGIServer:
    """A server that listens on the bound socket; its run() answers requests until SIGINT or SystemExit.

    Raises:
        ConfigError: another process has taken the port since it was bound.
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
        raise endpoint.cannot_listen(endpoint.of_socket(bound), error) from error
    server.channel_class = _Channel
    return server


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
