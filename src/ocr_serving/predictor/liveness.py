"""Whether a server is worth asking, as far as the calls to it tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ocr_serving.errors import DeadlineExceeded

SHUN_SECONDS = 5.0
"""How long a server is asked last that could not be reached, or left a call without an answer."""
SILENT_SECONDS = 1.0
"""A server that has answered nothing for so long, though calls wait, is asked last: it may be frozen, and a frozen one
still accepts connections. If it only computes for so long, another one has more time."""


class Liveness:
    """What the calls to one server have shown. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0  # calls
        self._heard = 0.0  # when it last answered, or the first of the waiting calls began, or one of them was given up
        self._silence = 0.0  # seconds that calls waited until they were given up, since it last answered
        self._failed = False  # the last call that ended had no answer
        self._shunned_until = 0.0

    def is_doubtful(self) -> bool:
        """Whether it should be asked last. While one call tries a server that failed, no other should."""
        now = time.monotonic()
        with self._lock:
            silent = self._failed or self._silence + now - self._heard > SILENT_SECONDS
            return now < self._shunned_until or (self._waiting > 0 and silent)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Learn from the call that is the block; an answer that is an error is an answer."""
        with self._lock:
            if not self._waiting:
                self._heard = time.monotonic()
            self._waiting += 1
        ended = self._told_nothing
        try:
            yield
            ended = self._answered
        except OSError:
            ended = self._left_without_answer
            raise
        except DeadlineExceeded:
            ended = self._given_up
            raise
        finally:
            with self._lock:
                self._waiting -= 1
                ended(time.monotonic())

    def _told_nothing(self, now: float) -> None:
        """A call ended for another reason."""

    def _answered(self, now: float) -> None:
        self._heard, self._silence, self._failed, self._shunned_until = now, 0.0, False, 0.0

    def _left_without_answer(self, now: float) -> None:
        self._failed, self._shunned_until = True, now + SHUN_SECONDS

    def _given_up(self, now: float) -> None:
        """Who gives calls little time learns from several of them."""
        self._silence += now - self._heard
        self._heard = now
        if self._silence > SILENT_SECONDS:
            self._left_without_answer(now)
