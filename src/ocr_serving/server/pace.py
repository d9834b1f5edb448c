"""How slowly a client may send a request that it has begun: each such client keeps one of the server's connections."""

from __future__ import annotations

import time

LEAST_RATE = 10_000
"""Bytes a second that a client must send on the average, of the web services, too; slower ones are cut off."""


class Pace:
    """How fast one request comes."""

    def __init__(self, seconds: float) -> None:
        """Allow so many seconds besides those that the bytes may take."""
        self._seconds = seconds
        self._begin: float | None = None
        self._bytes = 0

    def received(self, count: int) -> None:
        """Count bytes, from the first ones on.

        Raises:
            TimeoutError: the client is too slow.
        """
        now = time.monotonic()
        if self._begin is None:
            self._begin = now
        self._bytes += count
        if now - self._begin > self._seconds + self._bytes / LEAST_RATE:
            raise TimeoutError(f"{self._bytes} bytes of a request came in {now - self._begin:.0f} s, which is too slow")
