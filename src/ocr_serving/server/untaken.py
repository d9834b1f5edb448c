"""gRPC answers that their clients have not taken yet, and the bound on them.

grpcio keeps an answer until its client's window opens, for ever if need be, and a client may have a thousand calls
under way: one that takes nothing would fill the memory with answers to a megabyte of requests.
"""

from __future__ import annotations

import threading
import time

import grpc

from ocr_serving.errors import Overloaded

_SLOWEST = 1_000_000
"""Bytes a second that a client must take on the average, once the first Limits.send_seconds are over."""


class UntakenAnswers:
    """Those of one server. Thread-safe."""

    def __init__(self, most: int, seconds: float) -> None:
        """Hold about `most` bytes, and each for some `seconds`."""
        self._most = most
        self._seconds = seconds
        self._lock = threading.Lock()
        self._answers: dict[grpc.ServicerContext, tuple[int, float]] = {}

    def give_up_late(self) -> None:
        """Cancel the calls whose clients have had time enough."""
        now = time.monotonic()
        with self._lock:
            late = [context for context, (_, until) in self._answers.items() if until < now]
        for context in late:
            context.cancel()

    def check_room(self) -> None:
        """Make sure that there is room for an answer; to be called before it is computed.

        Raises:
            Overloaded: there is none.
        """
        with self._lock:
            held = sum(size for size, _ in self._answers.values())
        if held > self._most:
            raise Overloaded(f"Clients have not taken {held} bytes of answers, {self._most} is the limit; try again.")

    def add(self, context: grpc.ServicerContext, size: int) -> None:
        """Count the answer of a call until the client has it or is gone."""
        with self._lock:
            self._answers[context] = size, time.monotonic() + self._seconds + size / _SLOWEST
        if not context.add_callback(lambda: self._remove(context)):
            self._remove(context)  # gone already

    def _remove(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            del self._answers[context]
