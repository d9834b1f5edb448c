"""Requests sent at a service by many clients at once, for a bounded time."""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException

from harness.web import Client, Refused

OUTSTANDING = 128
"""Most requests of an open loop that wait for their answer; arrivals beyond are not sent, and counted."""


@dataclass
class Outcome:
    """What came of the requests of one step.

    Attributes:
        seconds: from the first arrival to the last answer.
        latencies: seconds of each answered request, from its arrival.
        failures: HTTP status, or "broken", -> how many; "unsent" for arrivals while OUTSTANDING were waiting.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        """Count a request without an answer."""
        self.failures[why] = self.failures.get(why, 0) + 1


class _Sender:
    """One connection and what its requests come to."""

    def __init__(self, connect: Callable[[], Client], outcome: Outcome, lock: threading.Lock) -> None:
        self._client = connect()
        self._outcome = outcome
        self._lock = lock

    def send(self, body: bytes, arrival: float) -> None:
        """Send a request that arrived at a moment of time.perf_counter()."""
        try:
            self._client.ask(body)
        except (Refused, OSError, HTTPException) as error:
            self._client.close()
            with self._lock:
                self._outcome.fail(str(error.status) if isinstance(error, Refused) else "broken")
        else:
            with self._lock:
                self._outcome.latencies.append(time.perf_counter() - arrival)

    def close(self) -> None:
        """Hang up."""
        self._client.close()


def closed_loop(connect: Callable[[], Client], bodies: Sequence[bytes], clients: int, seconds: float) -> Outcome:
    """So many clients, each sending its next request when it has the answer to the last one."""
    outcome, lock = Outcome(), threading.Lock()
    begin = time.perf_counter()

    def run(first: int) -> None:
        sender = _Sender(connect, outcome, lock)
        turn = first
        while time.perf_counter() - begin < seconds:
            sender.send(bodies[turn % len(bodies)], time.perf_counter())
            turn += 1
        sender.close()

    in_threads([lambda i=i: run(i) for i in range(clients)])  # type: ignore[misc]
    outcome.seconds = time.perf_counter() - begin
    return outcome


def open_loop(connect: Callable[[], Client], bodies: Sequence[bytes], rate: float, seconds: float) -> Outcome:
    """Requests that arrive at random (Poisson) moments, `rate` a second, whether or not earlier ones are answered."""
    outcome, lock = Outcome(), threading.Lock()
    arrivals: queue.SimpleQueue[tuple[bytes, float] | None] = queue.SimpleQueue()
    free = threading.Semaphore(OUTSTANDING)

    def work() -> None:
        sender = _Sender(connect, outcome, lock)
        while (arrival := arrivals.get()) is not None:
            sender.send(*arrival)
            free.release()
        sender.close()

    def arrive() -> None:
        dice = random.Random(1)
        moment = begin
        for body in itertools.cycle(bodies):
            moment += dice.expovariate(rate)
            if moment > begin + seconds:
                break
            time.sleep(max(0.0, moment - time.perf_counter()))
            if free.acquire(blocking=False):
                arrivals.put((body, moment))
            else:
                with lock:
                    outcome.fail("unsent")
        for _ in range(OUTSTANDING):
            arrivals.put(None)

    begin = time.perf_counter()
    in_threads([arrive, *[work] * OUTSTANDING])
    outcome.seconds = time.perf_counter() - begin
    return outcome


def in_threads(jobs: Sequence[Callable[[], object]]) -> None:
    """Run all at once, return when all are done."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
