"""R2, R5, R7: processes that are killed, freeze, abort, and are told to end, under load."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack

import psutil
import server_process
from harness.images import ROOT

from soak import client, pictures
from soak.client import Repeated
from soak.scenario import SAMPLE, Context, Finding, Scenario, counts, seconds_until

TYPED = {200, 429, 500, 502, 503, 504}
"""What may be answered while a process is dead or frozen; a hang or a broken connection is none of these."""


class Flood(Repeated):
    """Clients that go on asking while a block runs, and have done so for a second when it begins."""

    def __init__(self, port: int, clients: int = 4) -> None:
        super().__init__(self._ask, clients)
        self.replies: list[client.Reply] = []
        self._port = port
        self._body = client.body(pictures.page())

    def __enter__(self) -> Flood:
        super().__enter__()
        time.sleep(1)
        return self

    def _ask(self) -> None:
        reply = client.post(self._port, self._body)
        self.replies.append(reply)
        if reply.status != 200:
            time.sleep(0.1)

    @property
    def slowest(self) -> float:
        """Seconds."""
        return max(reply.seconds for reply in self.replies)


def r2(context: Context) -> Finding:
    """Each process killed, and each one frozen, under load."""
    timeout, frozen = 5.0, 4 if context.options.quick else 10
    parts, passed = [], True
    with ExitStack() as exits:
        stack = exits.enter_context(context.stack("--request-timeout", f"{timeout:g}"))
        stack.ask()
        web = stack.processes["web"]
        files = web.num_fds()
        for name in ("rec", "det", "web"):
            with Flood(stack.port) as flood:
                stack.processes[name].send_signal(signal.SIGSTOP)
                time.sleep(frozen)
                stack.processes[name].send_signal(signal.SIGCONT)
                back = seconds_until(lambda: stack.ask().status == 200, 30)
            most = timeout + 3 + (frozen if name == "web" else 0)
            parts.append(_about(f"{name} frozen {frozen} s", flood, back))
            passed &= _held(flood, back, most)
        with Flood(stack.port) as flood:
            stack.processes["rec"].kill()
            back = seconds_until(lambda: stack.ask().status == 200, 60)
        parts.append(_about("rec killed", flood, back))
        passed &= _held(flood, back, timeout + 3)
        with Flood(stack.port) as flood:
            stack.det.process.kill()
            stack.det.process.wait()
            time.sleep(2)
            exits.enter_context(server_process.running(*context.det_command(stack.det.port), cwd=ROOT))
            back = seconds_until(lambda: stack.ask().status == 200, 30)
        parts.append(_about("det killed, started again after 2 s", flood, back))
        passed &= _held(flood, back, timeout + 3)
        time.sleep(1)
        leaked = web.num_fds() - files
        alive = stack.is_alive()
    figure = f"{'; '.join(parts)}; {_web_killed(context)}; file descriptors of web {leaked:+d}"
    return Finding(figure, passed and alive and leaked <= 8)


def _web_killed(context: Context) -> str:
    """The web service killed: its rec server goes with it, and a new one takes the port at once."""
    with context.stack() as stack:
        rec = stack.processes["rec"]
        stack.web.process.kill()
        stack.web.process.wait()
        gone = seconds_until(lambda: not rec.is_running() or rec.status() == psutil.STATUS_ZOMBIE, 15)
        command, _ = context.web_command(stack.det.port)
        command[command.index("--port") + 1] = str(stack.port)
        with server_process.running(command, stack.port, cwd=ROOT) as web:
            status = client.post(web.port, client.body(SAMPLE())).status
    if gone is None or status != 200:
        raise AssertionError("rec outlived web, or a new web service did not serve")
    return f"web killed: its rec server gone after {gone:.1f} s, a new web service on the port answers {status}"


def _about(what: str, flood: Flood, back: float | None) -> str:
    found = counts(client.statuses(flood.replies))
    return f"{what}: {found}, slowest {flood.slowest:.1f} s, back after {back or -1:.1f} s"


def _held(flood: Flood, back: float | None, most: float) -> bool:
    return set(client.statuses(flood.replies)) <= TYPED and flood.slowest <= most and back is not None


def r5(context: Context) -> Finding:
    """SIGTERM under load, and a second one."""
    parts, passed = [], True
    for runs in range(1 if context.options.quick else 5):
        with context.stack() as stack, Flood(stack.port, 8) as flood:
            before = len(flood.replies)
            stack.web.process.terminate()
            begin = time.monotonic()
            ready = client.get(stack.port, "/health/ready").status
            status = stack.web.process.wait(30)
            seconds = time.monotonic() - begin
        # One accepted gets its answer; a connection made after the end is refused, which is status 0 at once.
        answered = [reply for reply in flood.replies[before:] if reply.status]
        cut = [reply for reply in flood.replies[before:] if not reply.status and reply.seconds > 0.05]
        passed &= ready in (503, 0) and status == 0 and seconds <= 11 and not cut
        if not runs:
            parts.append(
                f"ready {ready}, {counts(client.statuses(answered))}, {len(cut)} cut off, exit "
                f"{status} after {seconds:.1f} s"
            )
    with context.stack() as stack:
        thread = threading.Thread(
            target=lambda: client.post(stack.port, client.body(*[pictures.page()] * 60), timeout=20)
        )
        thread.start()
        seconds_until(lambda: stack.metric("ocr_running_requests") == 1, 5)
        stack.web.process.terminate()
        time.sleep(0.3)
        begin = time.monotonic()
        stack.web.process.terminate()
        stack.web.process.wait(20)
        second = time.monotonic() - begin
        thread.join()
    return Finding(f"{'; '.join(parts)}; a second SIGTERM ends it in {second:.1f} s", passed and second < 1)


def r7(context: Context) -> Finding:
    """The rec process aborts, once and again and again."""
    with context.stack() as stack:
        with Flood(stack.port) as flood:
            stack.processes["rec"].send_signal(signal.SIGABRT)
            back = seconds_until(lambda: stack.ask().status == 200, 30)
        looped = None
        for _ in range(8):
            children = psutil.Process(stack.web.process.pid).children()
            if children:
                children[0].send_signal(signal.SIGABRT)
            if looped := seconds_until(lambda: stack.metric("ocr_model_server_crash_loop") == 1, 2):
                break
        reply, ready = stack.ask(), stack.is_ready()
        again = seconds_until(lambda: stack.is_ready() and stack.ask().status == 200, 90)
        restarts = stack.metric("ocr_model_server_restarts_total")
    figure = (
        f"{counts(client.statuses(flood.replies))}, back after {back or -1:.1f} s; crash loop "
        f"reported: {looped is not None}, "
        f"then a request {reply.status} in {1000 * reply.seconds:.0f} ms, ready: {ready}; well again "
        f"after {again or -1:.0f} s, {restarts:.0f} restarts"
    )
    passed = set(client.statuses(flood.replies)) <= {200, 500, 503} and (back or 9) <= 5
    return Finding(figure, passed and looped is not None and not ready and reply.status == 503 and again is not None)


SCENARIOS = (
    Scenario("R2", "SIGSTOP and kill -9 of the web, det and rec processes under load", r2),
    Scenario("R5", "SIGTERM to the web service under load of 8 clients; a second SIGTERM", r5),
    Scenario("R7", "abort of the rec process under load, then again and again", r7),
)
