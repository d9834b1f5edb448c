"""Who is worked on now, who waits, and who is told at once that there is no use in waiting."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from ocr_serving.deadline import Deadline
from ocr_serving.errors import ClientLeft, DeadlineExceeded, OcrServingError, Overloaded, ShuttingDown

REASONS: Final = ("queue_full", "displaced", "no_time", "expired", "client_left", "shutting_down")
"""Why a request is dropped: no room, its place went to another tenant's, it would wait too long, its time ran out while
it waited, its client left meanwhile, the service ends."""

_NEWEST = 0.2
"""Weight of the newest request in the average time of one: the last ten or so count."""
_LONGEST_RETRY = 60
"""Seconds; no client is told to stay away for longer."""


class _Waiter:
    """A request in the queue. Its gate's lock guards it; `called` is set once it is decided."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.called = threading.Event()
        self.refusal: OcrServingError | None = None

    def call(self, refusal: OcrServingError | None = None) -> None:
        """Let it go ahead, or say why not."""
        self.refusal = refusal
        self.called.set()


class Gate:
    """Lets a fixed number of requests pass at once; a bounded queue of others waits. Thread-safe.

    Each tenant has a queue of its own, and their turns go round, so that one who floods the service delays itself
    alone. When all places are taken, a tenant who holds fewer than the greediest one takes that one's newest place.

    Attributes:
        running: requests past the gate.
        room: most requests past the gate and in the queue together.
        closed: whether new requests are refused because the service ends.
    """

    def __init__(self, max_running: int, max_queued: int, count_drop: Callable[[str], None]) -> None:
        """
        Args:
            max_running: requests past the gate at once.
            max_queued: requests that may wait.
            count_drop: called with one of REASONS for each request that is dropped.
        """
        self.running = 0
        self.room = max_running + max_queued
        self.closed = False
        self._max_running = max_running
        self._max_queued = max_queued
        self._count_drop = count_drop
        self._lock = threading.Lock()
        self._queues: dict[str, deque[_Waiter]] = {}  # none is empty; the first one's turn is next
        self._seconds = 0.0  # that a request takes, on average

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return sum(len(queue) for queue in list(self._queues.values()))

    def enter(self, deadline: Deadline, tenant: str = "") -> None:
        """Return when it is the request's turn; leave() must follow.

        Raises:
            Overloaded: there is no room, or no hope to be in time.
            DeadlineExceeded: the time ran out in the queue.
            ClientLeft: the client left while its request was in the queue.
            ShuttingDown: the service ends.
        """
        with self._lock:
            if self.closed:
                raise self._drop("shutting_down", ShuttingDown("The service is shutting down."))
            if self.running < self._max_running:
                self.running += 1
                return
            self._make_room(tenant)
            self._check_time(deadline, tenant)
            waiter = _Waiter(deadline)
            self._queues.setdefault(tenant, deque()).append(waiter)
        if not waiter.called.wait(deadline.remaining()):
            with self._lock:
                if not waiter.called.is_set():
                    self._remove(waiter, tenant)
                    waiter.call(self._expired())
        if waiter.refusal is not None:
            raise waiter.refusal

    def leave(self, seconds: float) -> None:
        """A request that had entered is done, so many seconds after; the next one's turn comes."""
        with self._lock:
            self.running -= 1
            self._seconds += (_NEWEST if self._seconds else 1.0) * (seconds - self._seconds)
            while self._queues and self.running < self._max_running:
                waiter = self._next()
                if waiter.deadline.has_left():
                    waiter.call(self._left())
                elif not waiter.deadline.remaining():
                    waiter.call(self._expired())
                else:
                    self.running += 1
                    waiter.call()

    def _next(self) -> _Waiter:
        """The waiter whose turn it is, out of the queue; its tenant goes to the end of the round."""
        tenant = next(iter(self._queues))
        queue = self._queues.pop(tenant)
        waiter = queue.popleft()
        if queue:
            self._queues[tenant] = queue
        return waiter

    def _remove(self, waiter: _Waiter, tenant: str) -> None:
        queue = self._queues[tenant]
        queue.remove(waiter)
        if not queue:
            del self._queues[tenant]

    def _make_room(self, tenant: str) -> None:
        """Raise Overloaded if the queue is full and stays so."""
        if self.queued < self._max_queued:
            return
        for other, queue in list(self._queues.items()):
            for waiter in [waiter for waiter in queue if waiter.deadline.has_left()]:
                self._remove(waiter, other)
                waiter.call(self._left())
        if self.queued < self._max_queued:
            return
        greediest = max(self._queues, key=lambda name: len(self._queues[name]), default=tenant)
        if len(self._queues.get(greediest, ())) <= len(self._queues.get(tenant, ())) + 1:
            raise self._drop("queue_full", self._overloaded())
        newest = self._queues[greediest][-1]
        self._remove(newest, greediest)
        newest.call(self._drop("displaced", self._overloaded()))

    def _check_time(self, deadline: Deadline, tenant: str) -> None:
        """Raise Overloaded if the request would wait too long to be answered in time."""
        own = len(self._queues.get(tenant, ()))
        ahead = own + sum(min(len(queue), own + 1) for name, queue in self._queues.items() if name != tenant)
        if (ahead + 1) * self._seconds / self._max_running + self._seconds <= deadline.remaining():
            return
        error = Overloaded(
            f"The service is busy: {ahead} requests wait, and this one could not be answered in time; try again."
        )
        error.retry_after = self._retry_after()
        raise self._drop("no_time", error)

    def _overloaded(self) -> Overloaded:
        error = Overloaded(
            f"The service is busy: {self._max_running} requests are worked on (max_running) and "
            f"{self._max_queued} wait (max_queued), its limits; try again."
        )
        error.retry_after = self._retry_after()
        return error

    def _retry_after(self) -> int:
        """Seconds until those who wait now are answered."""
        seconds = math.ceil((self.queued + 1) * self._seconds / self._max_running)
        return min(max(1, seconds), _LONGEST_RETRY)

    def _expired(self) -> OcrServingError:
        return self._drop("expired", DeadlineExceeded("The time for this request ran out in the queue."))

    def _left(self) -> OcrServingError:
        return self._drop("client_left", ClientLeft("The client closed the connection while its request waited."))

    def _drop(self, reason: str, error: OcrServingError) -> OcrServingError:
        self._count_drop(reason)
        return error
