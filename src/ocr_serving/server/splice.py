"""A client's connection joined to a private one, for a library that serves sockets of its own only."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

_CHUNK = 256 * 1024


class SplicedConnection:
    """Passes on what either side sends, until both have ended. See protocols.Connection.

    The library behind knows when its client is idle and what is left to answer; here nothing but bytes is known.
    """

    def __init__(self, sock: socket.socket, private: socket.socket) -> None:
        """Join a client's socket and one connected to the library; serve() closes the latter."""
        self._sock = sock
        self._private = private
        self._answering = threading.Thread(target=self._pass_on, args=(private, sock), name="splice", daemon=True)
        self._answering.start()

    def serve(self) -> None:
        """Pass bytes on in both directions."""
        with self._private:
            self._pass_on(self._sock, self._private)
            self._answering.join()

    def finish(self, seconds: float) -> None:
        """Wait until the library, told to stop, has said its last word."""
        self._answering.join(seconds)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        """Send what comes until it ends, and let the end be known; what breaks one direction breaks both."""
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while count := self._receive(source, buffer):
                sink.sendall(buffer[:count])
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for side in (source, sink):
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def _receive(self, source: socket.socket, buffer: memoryview) -> int:
        while True:
            try:
                return source.recv_into(buffer)
            except BlockingIOError:  # the client says nothing, which is no matter while the library keeps it
                if not self._answering.is_alive():
                    return 0
