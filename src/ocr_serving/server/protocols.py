"""The protocols of the model server's port, told apart by a connection's first bytes."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Protocol

from ocr_serving.server.brpc import BrpcConnection
from ocr_serving.server.http_connection import METHODS, HttpConnection
from ocr_serving.server.http_routes import Routes
from ocr_serving.server.limits import Limits
from ocr_serving.server.service import ModelService
from ocr_serving.server.workers import Workers
from ocr_serving.wire import frame

if TYPE_CHECKING:
    from ocr_serving.server.grpc_server import GrpcServer

_PREFIX = 4
"""Bytes that tell protocols apart: bRPC's magic has as many, and HTTP's methods differ in them."""
_HTTP = frozenset(f"{method} ".encode()[:_PREFIX] for method in METHODS)
_HTTP2 = b"PRI "


class Connection(Protocol):
    """A client's connection in one protocol.

    It is made from a blocking socket with the kernel's timeouts set (receiving or sending raises BlockingIOError after
    Limits.idle_seconds and send_seconds), which it neither closes nor outlives.
    """

    def serve(self) -> None:
        """Answer requests until the client leaves or the socket is shut down; runs on a thread of its own."""
        ...

    def finish(self, seconds: float) -> None:
        """Write the answers that are ready, then no more; returns when that is done or the time is up."""
        ...


class Protocols:
    """Makes a Connection of each client's socket. Thread-safe."""

    def __init__(self, service: ModelService, workers: Workers, limits: Limits, address: str) -> None:
        """Offer a service; `address` is the server's."""
        self._service = service
        self._workers = workers
        self._limits = limits
        self._address = address
        self._routes = Routes(service, workers, limits, address)
        self._grpc: GrpcServer | None = None
        self._starting = threading.Lock()

    def connect(self, sock: socket.socket) -> Connection | None:
        """The connection, once the first bytes have come; None for a protocol that is not spoken here."""
        prefix = sock.recv(_PREFIX, socket.MSG_PEEK | socket.MSG_WAITALL)
        if prefix == frame.MAGIC:
            return BrpcConnection(sock, self._service, self._workers, self._limits)
        if prefix in _HTTP:
            return HttpConnection(sock, self._routes, self._limits)
        if prefix == _HTTP2:
            return self._grpc_server().connect(sock)
        return None

    def stop(self, seconds: float) -> None:
        """Let what answers behind connections come to its end, within the time."""
        if self._grpc is not None:
            self._grpc.stop(seconds)

    def _grpc_server(self) -> GrpcServer:
        """Started for the first client that wants it: importing grpcio takes 0.2 s and 20 MB."""
        with self._starting:
            if self._grpc is None:
                from ocr_serving.server.grpc_server import GrpcServer

                self._grpc = GrpcServer(self._service, self._workers, self._limits, self._address)
            return self._grpc
