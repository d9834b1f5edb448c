"""The threads that answer requests, and the bound on how many requests wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ocr_serving.errors import Overloaded, ShuttingDown


class Workers:
    """A fixed number of threads with a bounded line before them. Thread-safe."""

    def __init__(self, threads: int, waiting: int) -> None:
        """Make room for `threads` requests at work and `waiting` more in line."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="worker")
        self._room = threads + waiting
        self._accepted = 0
        self._draining = False
        self._changed = threading.Condition()

    def submit(self, job: Callable[[], None]) -> Future[None]:
        """Run the job on a thread, soon; cancel the future to leave the line.

        Raises:
            Overloaded: the line is full.
            ShuttingDown: drain() was called.
        """
        with self._changed:
            if self._draining:
                raise ShuttingDown("The server is shutting down.")
            if self._accepted == self._room:
                raise Overloaded(f"The server has {self._room} unanswered requests, its limit; try again.")
            self._accepted += 1
        future = self._executor.submit(job)
        future.add_done_callback(self._leave)
        return future

    def drain(self, seconds: float) -> bool:
        """Take no new job, and wait until the accepted ones are done; returns whether they are."""
        with self._changed:
            self._draining = True
            return self._changed.wait_for(lambda: self._accepted == 0, seconds)

    def _leave(self, _: Future[None]) -> None:
        with self._changed:
            self._accepted -= 1
            self._changed.notify_all()
