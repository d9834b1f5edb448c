"""The gate in front of the engines: its bounds, its order, and whom it turns away before they wait or work in vain."""

import contextlib
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from rpc_peers import wait_until

from ocr_serving.deadline import Deadline
from ocr_serving.errors import ClientLeft, DeadlineExceeded, Overloaded, ShuttingDown
from ocr_serving.web.gate import REASONS, Gate


class Bench:
    """A gate, requests at it on threads of their own, and what became of them."""

    def __init__(self, running: int, queued: int) -> None:
        self.drops: Counter[str] = Counter()
        self.gate = Gate(running, queued, lambda reason: self.drops.update([reason]))
        self.order: list[str] = []
        self.refused: dict[str, Exception] = {}
        self.release: dict[str, threading.Event] = {}
        self._pool = ThreadPoolExecutor(100)

    def arrive(self, name: str, deadline: Deadline | None = None, tenant: str = "") -> None:
        """A request comes; returns when it runs, waits or is refused."""
        self.release[name] = threading.Event()
        self._pool.submit(self._request, name, deadline or Deadline.after(60), tenant)
        wait_until(lambda: self.gate.queued + len(self.order) + len(self.refused) >= len(self.release))

    def flood(self, count: int) -> None:
        """Requests a0, a1 and so on of one tenant come."""
        for i in range(count):
            self.arrive(f"a{i}", tenant="a")

    def finish(self, name: str) -> None:
        """A request that runs is done; returns when the next one runs."""
        wait_until(lambda: name in self.order)
        before = len(self.order)
        waiting = self.gate.queued
        self.release[name].set()
        if waiting:
            wait_until(lambda: len(self.order) > before or self.gate.queued == 0)

    def close(self) -> None:
        for event in self.release.values():
            event.set()
        self._pool.shutdown()

    def _request(self, name: str, deadline: Deadline, tenant: str) -> None:
        try:
            started = self.gate.enter(deadline, tenant)
        except Exception as error:
            self.refused[name] = error
            return
        self.order.append(name)
        self.release[name].wait(60)
        self.gate.leave(started)


@pytest.fixture
def bench():
    with contextlib.ExitStack() as stack:

        def make(running, queued):
            made = Bench(running, queued)
            stack.callback(made.close)
            return made

        yield make


def test_so_many_run_so_many_wait_and_the_next_is_refused_at_once(bench):
    at = bench(2, 3)
    for name in "abcde":
        at.arrive(name)
    assert (at.gate.running, at.gate.queued, at.order) == (2, 3, ["a", "b"])
    at.arrive("f")
    assert isinstance(at.refused["f"], Overloaded)
    assert "2 requests are worked on (max_running) and 3 wait (max_queued)" in str(at.refused["f"])
    assert at.refused["f"].retry_after >= 1
    assert at.drops == {"queue_full": 1}


def test_turns_come_in_the_order_of_arrival(bench):
    at = bench(1, 8)
    for name in "abcdef":
        at.arrive(name)
    for name in "abcdef":
        at.finish(name)
    assert at.order == list("abcdef")
    wait_until(lambda: at.gate.running == 0)
    assert not at.drops


def test_a_request_whose_time_runs_out_in_the_queue_never_runs(bench):
    at = bench(1, 2)
    at.arrive("a")
    at.arrive("b", Deadline.after(0.05))
    wait_until(lambda: "b" in at.refused)
    assert isinstance(at.refused["b"], DeadlineExceeded)
    at.finish("a")
    assert at.order == ["a"]
    assert at.drops == {"expired": 1}
    assert at.gate.queued == 0


def test_a_request_whose_client_left_is_dropped_when_its_turn_comes(bench):
    at = bench(1, 2)
    left = threading.Event()
    at.arrive("a")
    at.arrive("b", Deadline(time.monotonic() + 60, left.is_set))
    at.arrive("c")
    left.set()
    at.finish("a")
    assert isinstance(at.refused["b"], ClientLeft)
    assert at.order == ["a", "c"]
    assert at.drops == {"client_left": 1}


def test_clients_that_left_make_room(bench):
    at = bench(1, 1)
    left = threading.Event()
    at.arrive("a")
    at.arrive("b", Deadline(time.monotonic() + 60, left.is_set))
    left.set()
    at.arrive("c")
    at.finish("a")
    assert at.order == ["a", "c"]
    assert isinstance(at.refused["b"], ClientLeft)


def test_who_could_not_be_answered_in_time_is_refused_at_once(bench):
    at = bench(1, 100)
    at.gate._cost = 1.0  # as if requests took a second each
    at.arrive("a")
    at.arrive("b", Deadline.after(10))
    at.arrive("c", Deadline.after(2))
    assert isinstance(at.refused["c"], Overloaded)
    assert "within its time" in str(at.refused["c"])
    assert at.refused["c"].retry_after == 2, "two are before it"
    assert at.drops == {"no_time": 1}
    assert at.gate.queued == 1


def test_a_lone_request_is_always_let_in(bench):
    at = bench(2, 0)
    at.gate._cost = 1000.0
    at.arrive("a", Deadline.after(5))
    assert at.order == ["a"]
    at.arrive("b", Deadline.after(5))
    assert isinstance(at.refused["b"], Overloaded)
    assert at.refused["b"].retry_after == 60, "nobody is told to stay away for longer"


@pytest.mark.parametrize(("seconds", "refused"), [(220, True), (280, False)])
def test_a_turn_that_comes_too_late_is_not_taken(bench, seconds, refused):
    at = bench(2, 1)
    for name in "abc":
        at.arrive(name, Deadline.after(seconds))
    at.gate._shared += 100  # as if it had taken so long; beside b, c may take 1.25 times twice that
    at.finish("a")
    wait_until(lambda: "c" in at.refused or "c" in at.order)
    assert at.drops == ({"no_time": 1} if refused else {})


def test_the_cost_of_a_request_does_not_depend_on_how_many_run(bench):
    """Four at once that share the cores take four times as long each; a wait for four is as long either way."""
    costs = []
    for running in (1, 4):
        at = bench(running, 0)
        began = time.monotonic()
        for i in range(running):
            at.arrive(str(i))
        wait_until(lambda began=began, running=running: time.monotonic() - began > 0.1 * running)
        for i in range(running):
            at.finish(str(i))
        wait_until(lambda at=at: at.gate.running == 0)
        costs.append(at.gate._cost)
    assert costs[1] == pytest.approx(costs[0], rel=0.5)


@pytest.mark.parametrize(("images", "refused"), [([1] * 9, False), ([64] * 9, True), ([1] * 8 + [64], False)])
def test_a_request_counts_as_many_images_as_requests_mostly_hold(bench, images, refused):
    """An image takes 10 ms here."""
    at = bench(1, 9)
    for count in images:
        started = at.gate.enter(Deadline.after(60))
        at.gate._shared += 0.01 * count
        at.gate.leave(started, count)
    at.arrive("a")
    at.arrive("b", Deadline.after(1))
    assert ("b" in at.refused) == refused


def test_one_tenant_who_floods_leaves_room_and_turns_to_another(bench):
    at = bench(1, 4)
    at.flood(8)
    assert sorted(at.refused) == ["a5", "a6", "a7"]
    at.arrive("b0", tenant="b")
    wait_until(lambda: "a4" in at.refused)
    assert at.drops == {"queue_full": 3, "displaced": 1}
    at.finish("a0")
    at.finish("a1")
    assert at.order[:3] == ["a0", "a1", "b0"]
    assert "b0" not in at.refused


def test_one_tenant_who_floods_costs_another_one_turn(bench):
    at = bench(1, 100)
    at.gate._cost = 1.0  # as if requests took a second each
    at.flood(21)
    at.arrive("b", Deadline.after(6), tenant="b")
    at.finish("a0")
    at.finish("a1")
    assert at.order == ["a0", "a1", "b"]
    assert not at.drops


def test_who_would_then_wait_with_as_many_displaces_nobody(bench):
    at = bench(1, 3)
    for name in ("a0", "a1", "a2", "b0", "b1"):
        at.arrive(name, tenant=name[0])
    assert list(at.refused) == ["b1"]
    assert at.drops == {"queue_full": 1}


def test_who_could_not_be_answered_in_time_displaces_nobody(bench):
    at = bench(1, 4)
    at.gate._cost = 1.0  # as if requests took a second each
    at.flood(5)
    at.arrive("b", Deadline.after(0.5), tenant="b")
    assert list(at.refused) == ["b"]
    assert at.drops == {"no_time": 1}


def test_a_closed_gate_takes_nobody_new_and_lets_those_who_wait_through(bench):
    at = bench(1, 2)
    at.arrive("a")
    at.arrive("b")
    at.gate.closed = True
    at.arrive("c")
    assert isinstance(at.refused["c"], ShuttingDown)
    at.finish("a")
    assert at.order == ["a", "b"]
    assert at.drops == {"shutting_down": 1}


def test_under_a_storm_the_bounds_hold_and_everybody_is_answered():
    drops: Counter[str] = Counter()
    gate = Gate(3, 5, lambda reason: drops.update([reason]))
    running, most = 0, 0
    lock = threading.Lock()
    done = Counter()

    def request(i: int) -> None:
        nonlocal running, most
        try:
            started = gate.enter(
                Deadline(time.monotonic() + 0.02 * (1 + i % 7), lambda: i % 11 == 0), f"tenant {i % 3}"
            )
        except (Overloaded, DeadlineExceeded, ClientLeft):
            done["refused"] += 1
            return
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)
        with lock:
            running -= 1
        gate.leave(started)
        done["served"] += 1

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(request, range(600)))
    assert most <= 3
    assert done["served"] + done["refused"] == 600
    assert done["refused"] == sum(drops.values())
    assert set(drops) <= set(REASONS)
    assert (gate.running, gate.queued) == (0, 0)
