"""Calls to one bRPC server over pooled connections: one per call under way, kept for the next call."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from ocr_serving import endpoint
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, BadUpstream, DeadlineExceeded
from ocr_serving.forks import PerProcess
from ocr_serving.predictor.liveness import Liveness
from ocr_serving.wire import frame
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.frame import Frame

CONNECT_SECONDS = 2.0
"""The original client's connect timeout."""
_LEAST_SECONDS = 1e-3
"""Shortest timeout set on a socket; 0 would mean not to wait at all."""


@dataclass
class _Connections:
    """What one process has of a channel: two on one connection would read each other's answers."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    idle: list[socket.socket] = field(default_factory=list)
    liveness: Liveness = field(default_factory=Liveness)


class Channel:
    """Connections to one address. Thread-safe, and of use in forked processes, which connect anew.

    Attributes:
        address: "host:port".
    """

    def __init__(self, address: str) -> None:
        """Connect later, on the first call.

        Raises:
            ConfigError: this is no address.
        """
        self.address = address
        self._host_port = endpoint.parse(address)
        self._connections = PerProcess(_Connections)
        self._closed = False

    @property
    def liveness(self) -> Liveness:
        """What the calls to the server have shown."""
        return self._connections.get().liveness

    def call(self, request: Sequence[Buffer], correlation_id: int, deadline: Deadline) -> Frame:
        """Send a frame and return the frame that answers it.

        Raises:
            DeadlineExceeded: the answer was not there in time.
            BadUpstream: what came back is no frame, or answers another request.
            OSError: the server cannot be reached; a ConnectionError if it refused the connection or closed it.
        """
        kept = self._take()
        sock = kept or self._connect(deadline)
        try:
            answer = self._exchange(sock, request, deadline)
            if answer.meta.correlation_id != correlation_id:
                raise BadUpstream(f"The model server at {self.address} answered another request.")
        except BaseException as error:
            sock.close()
            if kept and isinstance(error, ConnectionError):  # the others may be as dead: the next call connects anew
                self._close_idle()
            raise
        self._give_back(sock)
        return answer

    def close(self) -> None:
        """Close the idle connections; those of calls under way are closed when they end."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        ours = self._connections.get()
        with ours.lock:
            idle, ours.idle = ours.idle, []
        for sock in idle:
            sock.close()

    def _take(self) -> socket.socket | None:
        """The idle connection used last that the server has not closed in the meantime, if there is one."""
        ours = self._connections.get()
        while True:
            with ours.lock:
                if not ours.idle:
                    return None
                sock = ours.idle.pop()
            if not _readable(sock):
                return sock
            sock.close()

    def _connect(self, deadline: Deadline) -> socket.socket:
        calling = f"before {self.address} could be called"
        deadline.check(calling)
        try:
            seconds = min(CONNECT_SECONDS, max(deadline.remaining(), _LEAST_SECONDS))
            sock = socket.create_connection(self._host_port, seconds)
        except TimeoutError:
            deadline.check(calling)
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _exchange(self, sock: socket.socket, request: Sequence[Buffer], deadline: Deadline) -> Frame:
        def in_time() -> socket.socket:
            deadline.check(f"while {self.address} worked on it")
            sock.settimeout(max(deadline.remaining(), _LEAST_SECONDS))
            return sock

        try:
            frame.write(lambda buffers: in_time().sendmsg(buffers), request)
            answer = frame.read(lambda buffer: in_time().recv_into(buffer))
        except BadInput as error:
            raise BadUpstream(f"What listens at {self.address} is no model server.") from error
        except TimeoutError:
            raise DeadlineExceeded(f"The time for this request ran out while {self.address} worked on it.") from None
        if answer is None:
            raise ConnectionError("The server closed the connection instead of answering.")
        return answer

    def _give_back(self, sock: socket.socket) -> None:
        ours = self._connections.get()
        with ours.lock:
            if not self._closed:
                ours.idle.append(sock)
                return
        sock.close()


def _readable(sock: socket.socket) -> bool:
    """Whether something came on an idle connection: its end, or bytes nobody asked for."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
