"""The model server's port: connections accepted, served each on a thread of its own, and drained at the end."""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
from contextlib import suppress

from ocr_serving import endpoint
from ocr_serving.deadline import Deadline
from ocr_serving.server.limits import Limits
from ocr_serving.server.protocols import Connection, Protocols
from ocr_serving.server.service import ModelService
from ocr_serving.server.workers import Workers

logger = logging.getLogger(__name__)


_BACKLOG = 128
_PAUSE_SECONDS = 0.2
"""After a connection that could not be accepted."""


class ModelServer:
    """A ModelService on a port.

    Attributes:
        address: where clients connect, "host:port".
    """

    def __init__(
        self, service: ModelService, listener: socket.socket, threads: int, limits: Limits | None = None
    ) -> None:
        """Prepare to serve.

        Args:
            service: what is served.
            listener: a bound socket, see endpoint.bind(); the server closes it.
            threads: requests worked on at once.
            limits: bounds on clients.
        """
        self.address = endpoint.of_socket(listener)
        self._listener = listener
        self._limits = limits or Limits()
        self._workers = Workers(threads, self._limits.waiting)
        self._protocols = Protocols(service, self._workers, self._limits, self.address)
        self._stopping = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._accepting = threading.Thread(target=self._accept, name="accept", daemon=True)
        self._free = threading.Semaphore(self._limits.connections)
        self._open: dict[socket.socket, Connection | None] = {}

    def start(self) -> None:
        """Accept connections from now on; returns at once.

        Raises:
            ConfigError: another process took the port in the meantime.
        """
        try:
            self._listener.listen(_BACKLOG)
        except OSError as error:
            raise endpoint.cannot_listen(self.address, error) from error
        self._listener.settimeout(0)
        self._accepting.start()

    def stop(self, grace: float) -> bool:
        """Accept no more, answer what was accepted within `grace` seconds, close; returns whether all was answered."""
        deadline = Deadline.after(grace)
        self._stopping.set()
        self._wake.close()
        self._accepting.join()
        self._woken.close()
        self._listener.close()
        drained = self._workers.drain(deadline.remaining())
        self._protocols.stop(deadline.remaining())
        for sock, connection in list(self._open.items()):
            if connection is not None:
                connection.finish(deadline.remaining())
            with suppress(OSError):  # the client was first
                sock.shutdown(socket.SHUT_RDWR)
        return drained

    def _accept(self) -> None:
        ready = select.poll()
        for sock in (self._listener, self._woken):
            ready.register(sock, select.POLLIN)
        while ready.poll() and not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:  # another process that shares the port was first, or the client left
                continue
            except OSError as error:  # out of file descriptors, or the client is gone already
                logger.warning("A connection could not be accepted: %s", error)
                self._stopping.wait(_PAUSE_SECONDS)
                continue
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        """Give the connection a thread, or close it."""
        if not self._free.acquire(blocking=False):
            logger.warning("A connection was closed: %d are open, the limit.", self._limits.connections)
            sock.close()
            return
        try:
            threading.Thread(target=self._handle, args=(sock,), name="connection", daemon=True).start()
        except RuntimeError as error:  # out of threads
            logger.warning("A connection was closed: %s", error)
            sock.close()
            self._free.release()

    def _handle(self, sock: socket.socket) -> None:
        self._open[sock] = None
        try:
            self._serve(sock)
        except (OSError, RuntimeError) as error:  # RuntimeError: out of threads
            logger.info("A connection broke: %s", error)
        except Exception:
            logger.exception("A connection was closed")
        finally:
            del self._open[sock]
            sock.close()
            self._free.release()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _set_timeout(sock, socket.SO_RCVTIMEO, self._limits.idle_seconds)
        _set_timeout(sock, socket.SO_SNDTIMEO, self._limits.send_seconds)
        connection = self._protocols.connect(sock)
        if connection is None:
            logger.info("A connection was closed: it speaks no protocol of this server.")
            return
        self._open[sock] = connection
        connection.serve()


def _set_timeout(sock: socket.socket, option: int, seconds: float) -> None:
    """The kernel's own timeout: Python's is one for receiving and sending."""
    whole = int(seconds)
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, int((seconds - whole) * 1e6)))
