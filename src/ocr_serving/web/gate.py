"""Who is worked on now, who waits, and who is told at once that there is no use in waiting."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final

from ocr_serving.deadline import Deadline
from ocr_serving.errors import ClientLeft, DeadlineExceeded, OcrServingError, Overloaded, ShuttingDown

REASONS: Final = ("queue_full", "displaced", "no_time", "expired", "client_left", "shutting_down")
"""Why a request is dropped: no room, its place went to another tenant's, it would wait too long, its time ran out while
it waited, its client left meanwhile, the service ends."""

_NEWEST = 0.2
"""Weight of the newest request in the average cost of an image: the last ten or so count."""
_LATEST = 15
"""Requests that say how many images one holds."""
_SLOW = 1.5
"""A request may well take so many times the average; one that might is not let in."""
_SLOW_AFTER_WAITING = 1.25
"""The same for one that has waited. With 1, at three times the load that can be answered (soak, O1), a dozen requests a
minute took others' time and were too late all the same; with 1.25 none were."""
_LONGEST_RETRY = 60
"""Seconds; no client is told to stay away for longer."""


class _Waiter:
    """A request in the queue. Its gate's lock guards it; `called` is set once it is decided."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.called = threading.Event()
        self.started = 0.0
        self.refusal: OcrServingError | None = None

    def call(self, refusal: OcrServingError | None = None) -> None:
        """Let it go ahead, or say why not."""
        self.refusal = refusal
        self.called.set()


class Gate:
    """Lets a fixed number of requests pass at once; a bounded queue of others waits. Thread-safe.

    Each tenant has a queue of its own, and their turns go round, so that one who floods the service delays itself
    alone. When all places are taken, a tenant who holds fewer than the greediest one takes that one's newest place.

    The cost of an image is the time that its request takes, divided by its images and by how many requests run beside
    it: where they share the cores, it is the same alone and in a crowd, and n images ahead mean n times as long a wait.
    A request that waits has not been read, and counts as many images as the median of the latest ones: where all hold
    many it does, too, and a single one that holds many makes no difference. Who could not be answered in time is
    refused before its work takes the others' time.

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
        self._image_cost = 0.0  # in seconds, on average
        self._images: deque[int] = deque(maxlen=_LATEST)  # of each of the latest requests
        self._cost = 0.0  # of a request, in seconds
        self._shared = 0.0  # seconds that a request which always ran would have had the service to itself
        self._ticked = time.monotonic()

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return sum(len(queue) for queue in list(self._queues.values()))

    def enter(self, deadline: Deadline, tenant: str = "") -> float:
        """Return when it is the request's turn; leave() must follow, and be given the value.

        Raises:
            Overloaded: there is no room, or no hope to be in time.
            DeadlineExceeded: the time ran out.
            ClientLeft: the client left while its request was in the queue.
            ShuttingDown: the service ends.
        """
        with self._lock:
            if self.closed:
                raise self._drop("shutting_down", ShuttingDown("The service is shutting down."))
            if not deadline.remaining():
                raise self._expired()
            if self.running < self._max_running:
                if not self._is_hopeful(deadline):
                    raise self._hopeless()
                return self._start()
            greediest = self._to_displace(tenant)
            if not self._is_hopeful(deadline, 1 + self._ahead(tenant)):
                raise self._hopeless()
            if greediest is not None:
                self._displace(greediest)
            waiter = _Waiter(deadline)
            self._queues.setdefault(tenant, deque()).append(waiter)
        if not waiter.called.wait(deadline.remaining()):
            with self._lock:
                if not waiter.called.is_set():
                    self._remove(waiter, tenant)
                    waiter.call(self._expired())
        if waiter.refusal is not None:
            raise waiter.refusal
        return waiter.started

    def leave(self, started: float, images: int = 1) -> None:
        """A request of so many images is done that entered at `started`; the next one's turn comes."""
        with self._lock:
            self._tick()
            self.running -= 1
            newest = _NEWEST if self._image_cost else 1.0
            self._image_cost += newest * ((self._shared - started) / images - self._image_cost)
            self._images.append(images)
            self._cost = self._image_cost * median(self._images)
            while self._queues and self.running < self._max_running:
                waiter = self._next()
                if waiter.deadline.has_left():
                    waiter.call(self._left())
                elif not waiter.deadline.remaining():
                    waiter.call(self._expired())
                elif not self._is_hopeful(waiter.deadline, slack=_SLOW_AFTER_WAITING):
                    waiter.call(self._hopeless())
                else:
                    waiter.started = self._start()
                    waiter.call()

    def _start(self) -> float:
        self._tick()
        self.running += 1
        return self._shared

    def _tick(self) -> None:
        """Go on with the shared time; before `running` changes."""
        now = time.monotonic()
        if self.running:
            self._shared += (now - self._ticked) / self.running
        self._ticked = now

    def _is_hopeful(self, deadline: Deadline, turns: int = 0, slack: float = _SLOW) -> bool:
        """Whether a request could be answered in time.

        A request that would run alone always is: it is the one way to learn that things are better now.

        Args:
            deadline: the request's.
            turns: it starts when so many others are done.
            slack: how many times the average it may take.
        """
        beside = self._max_running if turns else self.running + 1
        return not self.running or (turns + slack * beside) * self._cost <= deadline.remaining()

    def _ahead(self, tenant: str) -> int:
        """How many would be served before one more request of that tenant."""
        own = len(self._queues.get(tenant, ()))
        return own + sum(min(len(queue), own + 1) for name, queue in self._queues.items() if name != tenant)

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

    def _to_displace(self, tenant: str) -> str | None:
        """Whose newest request would have to make room for one of that tenant; None where there is room.

        Raises:
            Overloaded: the queue is full, and the tenant has its share of it.
        """
        if self.queued < self._max_queued:
            return None
        for other, queue in list(self._queues.items()):
            for waiter in [waiter for waiter in queue if waiter.deadline.has_left()]:
                self._remove(waiter, other)
                waiter.call(self._left())
        if self.queued < self._max_queued:
            return None
        greediest = max(self._queues, key=lambda name: len(self._queues[name]), default=tenant)
        if len(self._queues.get(greediest, ())) <= len(self._queues.get(tenant, ())) + 1:
            raise self._full("queue_full")
        return greediest

    def _displace(self, greediest: str) -> None:
        newest = self._queues[greediest][-1]
        self._remove(newest, greediest)
        newest.call(self._full("displaced"))

    def _full(self, reason: str) -> OcrServingError:
        return self._overloaded(
            reason, f"{self._max_running} requests are worked on (max_running) and {self._max_queued} wait (max_queued)"
        )

    def _hopeless(self) -> OcrServingError:
        return self._overloaded("no_time", "this request could not be answered within its time")

    def _overloaded(self, reason: str, why: str) -> OcrServingError:
        error = Overloaded(f"The service is busy: {why}; try again.")
        error.retry_after = min(max(1, math.ceil((self.queued + self.running) * self._cost)), _LONGEST_RETRY)
        return self._drop(reason, error)

    def _expired(self) -> OcrServingError:
        return self._drop("expired", DeadlineExceeded("The time for this request ran out before it was worked on."))

    def _left(self) -> OcrServingError:
        return self._drop("client_left", ClientLeft("The client closed the connection while its request waited."))

    def _drop(self, reason: str, error: OcrServingError) -> OcrServingError:
        self._count_drop(reason)
        return error
