"""The threads that answer requests, and the bound on how many requests wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ocr_serving.errors import Overloaded, ShuttingDown

_Result = TypeVar("_Result")


class Workers:
    """A fixed number of threads with a bounded line before them. Thread-safe.

    Attributes:
        room: most jobs at work and in line together.
        draining: whether new jobs are refused for good.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        """Make room for `threads` requests at work and `waiting` more in line."""
        self.room = threads + waiting
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="worker")
        self._accepted = 0
        self.draining = False
        self._changed = threading.Condition()

    def call(self, job: Callable[[], _Result], has_left: Callable[[], bool]) -> _Result:
        """Run the job on a thread and wait for it; what it raises passes through.

        Args:
            job: what to run.
            has_left: whether its client is gone; asked when its turn comes.

        Raises:
            Overloaded, ShuttingDown: see submit().
            ConnectionAbortedError: the client was gone, and the job was not run.
        """

        def in_turn() -> _Result:
            if has_left():
                raise ConnectionAbortedError("The client left before its request's turn came.")
            return job()

        return self.submit(in_turn).result()

    def submit(self, job: Callable[[], _Result]) -> Future[_Result]:
        """Run the job on a thread, soon; cancel the future to leave the line.

        Raises:
            Overloaded: the line is full.
            ShuttingDown: drain() was called.
        """
        with self._changed:
            if self.draining:
                raise ShuttingDown("The server is shutting down.")
            if self._accepted == self.room:
                raise Overloaded(f"The server has {self.room} unanswered requests, its limit; try again.")
            self._accepted += 1
        held = [job]
        try:
            future = self._executor.submit(lambda: held.pop()())
        except RuntimeError:  # no thread can be started; the executor keeps the job, and fails on it later
            held.clear()
            self._leave()
            raise
        future.add_done_callback(lambda _: held.clear())  # the executor keeps a cancelled job, but not its request
        future.add_done_callback(lambda _: self._leave())
        return future

    def drain(self, seconds: float) -> bool:
        """Take no new job, and wait until the accepted ones are done; returns whether they are."""
        with self._changed:
            self.draining = True
            return self._changed.wait_for(lambda: self._accepted == 0, seconds)

    def _leave(self) -> None:
        with self._changed:
            self._accepted -= 1
            self._changed.notify_all()
