"""O: more than the service can do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial

import psutil
from harness import traffic
from harness.measure import percentile
from harness.usage import Usage
from harness.web import WebClient

from soak import client, pictures
from soak.client import HOST, PATH, Repeated
from soak.scenario import Context, Finding, Scenario, Stack, counts, seconds_until

DEADLINE = 5.0
"""Seconds a request may take in the open loop."""
TIMES = 3
"""Of the capacity."""
PROBES_A_SECOND = 10
LONG = 60
"""Images of a request that takes seconds, also on a fast machine."""
MODEST_SECONDS = 10
"""Within so long, a client who sends one request a second is answered beside another's flood."""


class Probe(Repeated):
    """Asks /health/live and /metrics in turn while a block runs."""

    def __init__(self, port: int) -> None:
        super().__init__(self._ask, pause=1 / PROBES_A_SECOND)
        self._port = port
        self.seconds: dict[str, list[float]] = {"/health/live": [], "/metrics": []}
        self.most_queued = 0.0

    def p99_ms(self, path: str) -> float:
        """Milliseconds."""
        return 1000 * percentile(self.seconds[path], 99)

    def _ask(self) -> None:
        for path, found in self.seconds.items():
            reply = client.get(self._port, path)
            found.append(reply.seconds if reply.status == 200 else client.SECONDS)
            for row in reply.body.decode().splitlines():
                if row.startswith("ocr_queued_requests "):
                    self.most_queued = max(self.most_queued, float(row.split()[1]))


def o1_to_o3(context: Context) -> dict[str, Finding]:
    """The open loop, and what is measured beside and after it."""
    seconds = context.options.overload_seconds
    with context.stack("--request-timeout", f"{DEADLINE:g}") as stack:
        connect = partial(WebClient, f"http://{HOST}:{stack.port}{PATH}")
        bodies = [client.body(pictures.page())]
        traffic.closed_loop(connect, bodies, 4, 3)
        with Probe(stack.port):  # what it costs is not to be held against the open loop alone
            peak = max(_rate(traffic.closed_loop(connect, bodies, n, max(5.0, seconds / 6))) for n in (4, 8))
        before = _p50(stack, bodies[0])
        usage = Usage({"load": psutil.Process(), "web": stack.processes["web"]})
        beside: list[client.Reply] = []
        watch = Repeated(lambda: beside.append(client.post(stack.port, bodies[0])), pause=0.5)
        probe = Probe(stack.port)
        with probe, watch, usage:
            outcome = traffic.open_loop(connect, bodies, TIMES * peak, seconds)
        time.sleep(5)
        after = _p50(stack, bodies[0])
    goodput, p99 = _rate(outcome), percentile(outcome.latencies, 99)
    refused = {key: count for key, count in outcome.failures.items() if key != "unsent"}
    waits = [int(reply.headers.get("Retry-After", 0)) for reply in beside if reply.status in (429, 503)]
    only_typed = not set(refused) - {"429", "503", "504"} and all(waits)
    o1 = (
        f"peak {peak:.1f}/s; {TIMES * peak:.0f}/s offered for {seconds:.0f} s: goodput {goodput:.1f}/s "
        f"({goodput / peak:.0%} of peak), accepted p99 {p99:.2f} s of {DEADLINE:g} s; others: {outcome.failures}; "
        f"most in queue {probe.most_queued:.0f}; of the machine's cores the load itself took "
        f"{usage.summary()['load']['cores']:.2f}, the web process {usage.summary()['web']['cores']:.2f}"
    )
    live, metrics = probe.p99_ms("/health/live"), probe.p99_ms("/metrics")
    return {
        "O1": Finding(o1, goodput >= 0.9 * peak and p99 <= DEADLINE and only_typed and probe.most_queued <= 64),
        "O2": Finding(f"p99: live {live:.0f} ms, metrics {metrics:.0f} ms", live < 100 and metrics < 100),
        "O3": Finding(f"p50 {1000 * before:.0f} ms before, {1000 * after:.0f} ms after", after <= 1.1 * before),
    }


def _part(name: str, context: Context) -> Finding:
    """One of the three findings; the run is made once."""
    if name not in context.notes:
        context.notes.update(o1_to_o3(context))
    return context.notes[name]


def _rate(outcome: traffic.Outcome) -> float:
    return len(outcome.latencies) / outcome.seconds


def _p50(stack: Stack, body: bytes) -> float:
    replies = client.send_all(stack.port, [body] * 20, 1)
    return percentile([reply.seconds for reply in replies if reply.status == 200], 50)


@contextmanager
def _busy(context: Context) -> Iterator[tuple[Stack, Callable[[], float]]]:
    """A stack that runs one request at a time, and is at a long one; and what waits for its end and says how often det
    ran meanwhile."""
    with context.stack("--max-running", "1") as stack:
        ran = partial(stack.metric, "ocr_batch_size_count", model="det")
        before = ran()
        busy = threading.Thread(target=lambda: client.post(stack.port, _long()))
        busy.start()
        seconds_until(lambda: stack.metric("ocr_running_requests") == 1, 5)

        def finish() -> float:
            busy.join()
            return ran() - before

        yield stack, finish


def _long() -> bytes:
    return client.body(*[pictures.page()] * LONG)


def o4(context: Context) -> Finding:
    """Requests whose time ends in the queue."""
    with _busy(context) as (stack, finish):
        count = context.options.scaled(100)
        # The gate has seen no costs yet, so it lets them wait; each has a fifth of a second.
        sent = client.send_all(stack.port, [client.body(pictures.page())] * count, 10, {"X-Request-Timeout": "0.2"})
        early = client.statuses(sent)
        made = finish()
        dropped = stack.metric("ocr_dropped_requests_total")
        alive = stack.is_alive()
    figure = (
        f"{counts(early)}; det ran {made:.0f} times, all for the request ahead ({LONG} images); {dropped:.0f} "
        "counted as dropped"
    )
    return Finding(figure, set(early) <= {503, 504} and 504 in early and made == LONG and dropped == count and alive)


def o5(context: Context) -> Finding:
    """Clients that leave."""
    with _busy(context) as (stack, finish):
        count = 20
        with ExitStack() as stacked:
            for _ in range(count):
                stacked.enter_context(_half_asked(stack.port))
            seconds_until(lambda: stack.metric("ocr_queued_requests") == count, 5)
        made = finish()
        seconds_until(lambda: stack.metric("ocr_running_requests") == 0, 30)
        left = stack.metric("ocr_dropped_requests_total", reason="client_left")
        with closing(_half_asked(stack.port, _long())):
            seconds_until(lambda: stack.metric("ocr_running_requests") == 1, 5)
        seconds = seconds_until(lambda: stack.metric("ocr_running_requests") == 0, 60)
        alive, traced = stack.is_alive(), "Traceback" in stack.web.output + stack.det.output
    figure = (
        f"{left:.0f} of {count} left while queued were dropped, det ran {made:.0f} times ({LONG} for the one ahead); "
        f"running work given up {seconds or 0:.1f} s after its client; traces: {'yes' if traced else 'none'}"
    )
    return Finding(figure, left == count and made == LONG and seconds is not None and alive and not traced)


def _half_asked(port: int, data: bytes | None = None) -> socket.socket:
    """A connection with a request on it whose answer is never read."""
    data = data or client.body(pictures.page())
    connection = socket.create_connection((HOST, port), 10)
    connection.sendall(client.HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data)
    return connection


def o6(context: Context) -> Finding:
    """Slow and idle clients by the hundred."""
    stack = context.shared
    stack.ask()
    figures, passed = [], True
    headers = client.HEAD + b"Content-Length: 50000\r\n"
    kinds = {
        "stalled uploads": headers + b"\r\n{",
        "idle keep-alives": b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        "headers without an end": headers,
        "clients that send 6000 requests ahead": b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 6000,
    }
    count = context.options.scaled(600)
    for name, start in kinds.items():
        with ExitStack() as stacked:
            held = [stacked.enter_context(_started(stack.port, start)) for _ in range(count)]
            taken_in = client.get(stack.port, "/health/live").seconds
            replies = [stack.ask() for _ in range(10)]
            slowest = max(reply.seconds for reply in replies)
            good = all(reply.status == 200 for reply in replies)
            closed = seconds_until(lambda held=held: all(_is_closed(one) for one in held), 75)  # type: ignore[misc]
        figures.append(
            f"{count} {name}: taken in within {taken_in:.1f} s, then slowest of 10 requests "
            f"{1000 * slowest:.0f} ms, all closed after {closed or -1:.0f} s"
        )
        passed &= good and slowest < 0.2 and closed is not None
    return Finding("; ".join(figures), passed and stack.is_alive())


def _started(port: int, data: bytes) -> socket.socket:
    connection = socket.create_connection((HOST, port), 10)
    with suppress(ConnectionError):  # closed before it has sent all
        connection.sendall(data)
    connection.setblocking(False)
    return connection


def _is_closed(connection: socket.socket) -> bool:
    with suppress(BlockingIOError):
        try:
            return not connection.recv(65536)
        except ConnectionError:
            return True
    return False


def o7(context: Context) -> Finding:
    """Two tenants, one of whom floods."""
    seconds = 10 if context.options.quick else 30
    with context.stack("--api-keys", "flooding-key,modest-key", "--max-queued", "16") as stack:
        data = client.body(pictures.page())
        flood: list[client.Reply] = []
        modest: list[client.Reply] = []

        def ask(key: str, replies: list[client.Reply]) -> None:
            replies.append(client.post(stack.port, data, {"Authorization": f"Bearer {key}"}))

        threads = [threading.Thread(target=ask, args=("modest-key", modest)) for _ in range(seconds)]
        with Repeated(partial(ask, "flooding-key", flood), 40):
            for thread in threads:  # one a second, answered or not
                thread.start()
                time.sleep(1)
        for thread in threads:
            thread.join()
    slowest = max(reply.seconds for reply in modest)
    figure = (
        f"flood of 40 clients: {counts(client.statuses(flood))}; 1 a second: "
        f"{counts(client.statuses(modest))}, slowest {slowest:.1f} s"
    )
    return Finding(figure, set(client.statuses(modest)) == {200} and slowest < MODEST_SECONDS)


SCENARIOS = (
    Scenario(
        "O1",
        "Poisson arrivals at three times the capacity, whole image requests",
        partial(_part, "O1"),
        "overload_seconds",
    ),
    Scenario("O2", "/health/live and /metrics ten times a second during O1", partial(_part, "O2"), "overload_seconds"),
    Scenario("O3", "one client before O1, and again five seconds after it", partial(_part, "O3"), "overload_seconds"),
    Scenario("O4", "requests with 0.2 s left behind one that takes seconds", o4),
    Scenario("O5", "20 clients leave while queued, one while its request runs", o5),
    Scenario("O6", "600 stalled uploads, 600 idle keep-alives, 600 unfinished headers, 600 floods of requests", o6),
    Scenario("O7", "with API keys, one tenant floods from 40 connections, another sends one a second", o7),
)
