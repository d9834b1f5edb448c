"""R6, R9: what a service finds where it starts: taken ports, damaged models, full disks."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import server_process
from harness.images import ROOT

from soak import client
from soak.scenario import SAMPLE, SAMPLE_TEXT, Context, Finding, Scenario, counts, seconds_until

MOST_SECONDS = 3
"""Until a start that cannot succeed has ended; one that took longer is tried once more."""


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
        for case, command in cases.items():
            if found[case][2] >= MOST_SECONDS:  # on a machine that does other work, too
                found[case] = _failed_start(command)
    figure = ", ".join(
        f"{case}: exit {status}, {lines} line, {seconds:.1f} s" for case, (status, lines, seconds) in found.items()
    )
    return Finding(figure, all(status == 2 and lines == 1 and s < MOST_SECONDS for status, lines, s in found.values()))


def _failed_start(command: Sequence[str]) -> tuple[int, int, float]:
    begin = time.monotonic()
    try:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return -1, 0, time.monotonic() - begin
    return done.returncode, len(done.stderr.splitlines()), time.monotonic() - begin


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
    Scenario("R6", "port taken, model missing or cut, dictionary of another size", r6),
    Scenario("R9", "no HOME, a full disk behind stderr, a stderr that nobody reads", r9),
)
