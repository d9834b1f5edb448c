"""R: servers that die, freeze, come late, lie, and end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import server_process
from harness.images import ROOT

from ocr_serving import endpoint
from ocr_serving.deadline import Deadline
from ocr_serving.model_dir import DET_LOGITS
from ocr_serving.predictor.base import Array, Arrays
from ocr_serving.server.listener import ModelServer
from ocr_serving.server.service import ModelService, ServedModel
from ocr_serving.web.upstream import DET_FEEDS, DET_FETCHES
from soak import client, pictures
from soak.scenario import SAMPLE, SAMPLE_TEXT, Context, Finding, Scenario, counts, seconds_until

TYPED = {200, 429, 500, 502, 503, 504}
"""What may be answered while a process is dead or frozen; a hang or a broken connection is none of these."""


def r1(context: Context) -> Finding:
    """The web service before its det server."""
    port = server_process.free_port()
    with server_process.running(*context.web_command(port), cwd=ROOT) as web:
        live = client.get(web.port, "/health/live").status
        ready = client.get(web.port, "/health/ready").status
        reply = client.post(web.port, client.body(SAMPLE()))
        with server_process.running(*context.det_command(port), cwd=ROOT):
            back = seconds_until(lambda: client.get(web.port, "/health/ready").status == 200, 30)
            text = client.post(web.port, client.body(SAMPLE())).texts
    figure = (
        f"live {live}, ready {ready}, a request {reply.status} {reply.code} in {1000 * reply.seconds:.0f} ms; "
        f"ready {back or -1:.1f} s after det listens"
    )
    refused = reply.status == 503 and reply.code == "UPSTREAM_UNAVAILABLE" and reply.seconds < 1
    return Finding(figure, live == 200 and ready == 503 and refused and (back or 9) <= 2 and text == [SAMPLE_TEXT])


class _Flood:
    """Clients that go on asking while a block runs."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.replies: list[client.Reply] = []
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> _Flood:
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        data = client.body(pictures.page())
        while not self._stop.is_set():
            self.replies.append(client.post(self._port, data))
            if self.replies[-1].status != 200:
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
            with _Flood(stack.port) as flood:
                stack.processes[name].send_signal(signal.SIGSTOP)
                time.sleep(frozen)
                stack.processes[name].send_signal(signal.SIGCONT)
                back = seconds_until(lambda: stack.ask().status == 200, 30)
            most = timeout + 3 + (frozen if name == "web" else 0)
            parts.append(_about(f"{name} frozen {frozen} s", flood, back))
            passed &= _held(flood, back, most)
        with _Flood(stack.port) as flood:
            stack.processes["rec"].kill()
            back = seconds_until(lambda: stack.ask().status == 200, 60)
        parts.append(_about("rec killed", flood, back))
        passed &= _held(flood, back, timeout + 3)
        with _Flood(stack.port) as flood:
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


def _about(what: str, flood: _Flood, back: float | None) -> str:
    found = counts(client.statuses(flood.replies))
    return f"{what}: {found}, slowest {flood.slowest:.1f} s, back after {back or -1:.1f} s"


def _held(flood: _Flood, back: float | None, most: float) -> bool:
    return set(client.statuses(flood.replies)) <= TYPED and flood.slowest <= most and back is not None


def r3(context: Context) -> Finding:
    """Bytes that no client sends, on the model server's port."""
    stack = context.shared
    process = psutil.Process(stack.det.process.pid)
    before = process.memory_info().rss / 1e6
    dice = np.random.default_rng(1)
    count = context.options.scaled(500)
    for i in range(count):
        noise = dice.bytes(int(dice.integers(1, 3000)))
        start = (
            b"",
            b"PRPC",
            b"PRPC\xff\xff\xff\xff\0\0\0\x01",
            b"PRPC\0\0\0\x20\0\0\0\x10",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        )
        client.raw(stack.det.port, start[i % 5] + noise, seconds=1, end=True)
    answer = client.raw(stack.det.port, b"PRPX" + bytes(100), seconds=2)
    grown = process.memory_info().rss / 1e6 - before
    alive = stack.is_alive()
    figure = (
        f"{count} connections of garbage, oversize and damaged frames; memory {grown:+.1f} MB; closed, alive: {alive}"
    )
    return Finding(figure, alive and grown < 50 and not answer.startswith(b"PRPC"))


class _Liar:
    """A det model that answers something else than a map. See predictor.base.Predictor."""

    def __init__(self, answer: Array | None = None) -> None:
        self.answer = answer

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        return {} if self.answer is None else {DET_LOGITS: self.answer}

    def close(self) -> None:
        pass


_LIES: Mapping[str, Array] = {
    "two dimensions": np.zeros((32, 32), np.float32),
    "another size": np.zeros((1, 1, 7, 7), np.float32),
    "two maps": np.zeros((2, 1, 32, 32), np.float32),
    "integers": np.zeros((1, 1, 32, 32), np.int64),
    "NaN": np.full((1, 1, 64, 64), np.nan, np.float32),
    "empty": np.zeros((0,), np.float32),
    "huge": np.zeros((1, 1, 4000, 4000), np.float32),
}


def r4(context: Context) -> Finding:
    """A det server that answers nonsense."""
    port = server_process.free_port()
    liar = _Liar()
    served = ModelService({"det": ServedModel(liar, DET_FEEDS, DET_FETCHES)})
    server = ModelServer(served, endpoint.bind("127.0.0.1", port), 2)
    server.start()
    answers: dict[str, client.Reply] = {}
    try:
        with server_process.running(*context.web_command(port), cwd=ROOT) as web:
            for name, lie in _LIES.items():
                liar.answer = lie
                answers[name] = client.post(web.port, client.body(SAMPLE()), {"X-Request-Id": f"lie-{name.split()[0]}"})
            logged = all(f"[lie-{name.split()[0]}]" in web.output for name in _LIES)
    finally:
        server.stop(2)
    figure = ", ".join(f"{name} {reply.status} {reply.code}" for name, reply in answers.items())
    return Finding(f"{figure}; ids in the log: {logged}", all(r.status == 502 for r in answers.values()) and logged)


def r5(context: Context) -> Finding:
    """SIGTERM under load, and a second one."""
    parts, passed = [], True
    for runs in range(1 if context.options.quick else 5):
        with context.stack() as stack, _Flood(stack.port, 8) as flood:
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


def r6(context: Context) -> Finding:
    """Starts that cannot succeed."""
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as taken:
        folder = Path(name)
        port = ["--port", str(taken.getsockname()[1])]
        cut = shutil.copytree(context.models.rec, folder / "cut")
        (cut / "inference.onnx").write_bytes((cut / "inference.onnx").read_bytes()[:100_000])
        short = shutil.copytree(context.models.rec, folder / "short")
        text = (short / "inference.yml").read_text(encoding="utf-8")
        (short / "inference.yml").write_text(re.sub(r"(?m)\A((?:.*\n){200})[\s\S]*\Z", r"\1", text), encoding="utf-8")
        web, _ = context.web_command(1, door="rec_web")
        plain = [part for part in web if not part.startswith("--rec-model")]
        serve = ["-m", "paddle_serving_server.serve", "--port", str(server_process.free_port()), "--model"]
        cases = {
            "port taken, web": [*web, *port],
            "port taken, model server": [
                "-m",
                "paddle_serving_server.serve",
                "--model",
                str(context.models.det),
                *port,
            ],
            "no model, web": [*plain, "--rec-model", "missing"],
            "no model, model server": [*serve, "missing"],
            "cut model, web": [*plain, "--rec-model", str(cut)],
            "cut model, model server": [*serve, str(cut)],
            "wrong dictionary": [*plain, "--rec-model", str(short)],
        }
        found = {case: _failed_start(command) for case, command in cases.items()}
    figure = ", ".join(
        f"{case}: exit {status}, {lines} line, {seconds:.1f} s" for case, (status, lines, seconds) in found.items()
    )
    return Finding(figure, all(status == 2 and lines == 1 and s < 3 for status, lines, s in found.values()))


def _failed_start(command: Sequence[str]) -> tuple[int, int, float]:
    begin = time.monotonic()
    try:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return -1, 0, time.monotonic() - begin
    return done.returncode, len(done.stderr.splitlines()), time.monotonic() - begin


def r7(context: Context) -> Finding:
    """The rec process aborts, once and again and again."""
    with context.stack() as stack:
        with _Flood(stack.port) as flood:
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


def r8(_: Context) -> Finding:
    """The clock."""
    pattern = re.compile(r"\btime\.time\(|datetime\.(?:now|utcnow)\(|time\.localtime\(|time_ns\(")
    found = []
    for file in sorted((ROOT / "src" / "ocr_serving").rglob("*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        found += [f"{file.name}: {line.strip()}" for line in lines if pattern.search(line)]
    figure = (
        "The wall clock is not set forward, which takes rights that a test has not; instead: every "
        "deadline, timeout and "
        f"back-off in src/ocr_serving reads time.monotonic(); the wall clock is read in {len(found)} "
        "line, for the profile times on the wire"
    )
    return Finding(
        f"{figure} ({'; '.join(found)})" if found else figure, all("time.time_ns() // 1000" in line for line in found)
    )


def r9(context: Context) -> Finding:
    """Nowhere to write, nobody who reads."""
    parts, passed = [], True
    det = server_process.running(*context.det_command(), cwd=ROOT)
    with det as det_server:
        for name, output in {"stderr full (/dev/full)": "/dev/full", "stderr a pipe nobody reads": None}.items():
            command, port = context.web_command(det_server.port)
            read, write = os.pipe() if output is None else (None, os.open(output, os.O_WRONLY))
            environ = {key: value for key, value in os.environ.items() if key not in ("HOME", "TMPDIR")} | {
                "HOME": "/nonexistent"
            }
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=write
            )
            try:
                seconds_until(lambda port=port: client.get(port, "/health/live").status == 200, 60)  # type: ignore[misc]
                count = context.options.scaled(3000)
                replies = client.send_all(port, [b"{"] * count, 8)
                last = client.post(port, client.body(SAMPLE()))
            finally:
                process.terminate()
                process.wait(20)
                for end in (read, write):
                    if end is not None:
                        os.close(end)
            parts.append(f"{name}, no HOME: {counts(client.statuses(replies))}, then a page {last.status}")
            passed &= set(client.statuses(replies)) == {400} and last.texts == [SAMPLE_TEXT]
    return Finding("; ".join(parts), passed)


SCENARIOS = (
    Scenario("R1", "the web service is started before its det server", r1),
    Scenario("R2", "SIGSTOP and kill -9 of the web, det and rec processes under load", r2),
    Scenario("R3", "garbage, oversize and damaged frames on the model server's port", r3),
    Scenario("R4", "a det server that answers wrong shapes, types, NaN, nothing and too much", r4),
    Scenario("R5", "SIGTERM to the web service under load of 8 clients; a second SIGTERM", r5),
    Scenario("R6", "port taken, model missing or cut, dictionary of another size", r6),
    Scenario("R7", "abort of the rec process under load, then again and again", r7),
    Scenario("R8", "clock jump", r8),
    Scenario("R9", "no HOME, a full disk behind stderr, a stderr that nobody reads", r9),
)
