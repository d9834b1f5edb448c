"""What one client may take of the model server."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_serving.wire.frame import MAX_BODY


@dataclass(frozen=True)
class Limits:
    """Bounds of the server, in the order a request meets them."""

    connections: int = 1000
    """Open connections; more are closed at once. A process that may open few files takes fewer."""
    idle_seconds: float = 80.0
    """A connection without a byte or a pending answer for so long is closed, as brpc does. So is one that sends a
    request too slowly: it has so long, and a second more for each 10 kB (see pace; not over gRPC)."""
    body_bytes: int = MAX_BODY
    """Largest request, packed and unpacked."""
    pipelined: int = 32
    """Unanswered requests read from one connection; the next one waits in the socket."""
    waiting: int = 128
    """Requests waiting for a thread; more are answered with Overloaded at once."""
    send_seconds: float = 30.0
    """A client that does not take its answer within this time loses the connection."""
