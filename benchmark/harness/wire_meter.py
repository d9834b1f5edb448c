"""A meter between a client and a server: passes bytes on and counts them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ocr_serving import endpoint

_CHUNK = 256 * 1024


class WireMeter:
    """Listens on a loopback port and counts what passes.

    Attributes:
        address: where clients connect instead of at the server.
        sent, received: bytes from and to clients, below TCP's own headers.
    """

    def __init__(self, server: str, listener: socket.socket) -> None:
        self.address = endpoint.of_socket(listener)
        self.sent = 0
        self.received = 0
        self._server = endpoint.parse(server)
        self._listener = listener

    def accept(self) -> None:
        """Join clients to the server until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                threading.Thread(target=self._upload, args=(client, server), daemon=True).start()
                threading.Thread(target=self._download, args=(server, client), daemon=True).start()

    def _upload(self, client: socket.socket, server: socket.socket) -> None:
        for count in _pass_on(client, server):
            self.sent += count

    def _download(self, server: socket.socket, client: socket.socket) -> None:
        for count in _pass_on(server, client):
            self.received += count


@contextmanager
def metered(server: str) -> Iterator[WireMeter]:
    """A meter in front of a server ("host:port")."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meter = WireMeter(server, listener)
        threading.Thread(target=meter.accept, daemon=True).start()
        yield meter
        listener.shutdown(socket.SHUT_RDWR)


def _pass_on(source: socket.socket, sink: socket.socket) -> Iterator[int]:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            yield len(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
