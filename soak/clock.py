"""R8: the wall clock jumps by an hour, for the services alone."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

from harness.web import server_timing

from soak import client, pictures
from soak.client import HOST
from soak.scenario import Context, Finding, Scenario, Stack, counts

HOUR = 3600
_SOURCE = Path(__file__).with_name("clock_shift.c")


def r8(context: Context) -> Finding:
    """An hour forward, an hour back, and each time work that is under way."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return Finding("the clock of the services is moved by a library that a C compiler builds; here is none", None)
    parts, passed = [], True
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        library, shift = Path(folder) / "clock_shift.so", Path(folder) / "shift"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
        shift.write_text("0")
        environ = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(shift)}
        stack = exits.enter_context(context.stack(**environ))
        stack.ask()
        for name, seconds in {"an hour forward": HOUR, "back": 0, "an hour backward": -HOUR}.items():
            found = _across(stack, partial(shift.write_text, str(seconds)))
            moved = abs(_stated(stack) - time.time() - seconds) < 60
            parts.append(f"{name} (the services see it: {moved}): {found.figure}")
            passed &= moved and found.passed is True
        alive, ready = stack.is_alive(), stack.is_ready()
        negative = [row for row in client.get(stack.port, "/metrics").body.decode().splitlines() if " -" in row]
    figure = f"{'; '.join(parts)}; alive: {alive}, ready: {ready}, negative metrics: {negative or 'none'}"
    return Finding(figure, passed and alive and ready and not negative)


def _across(stack: Stack, jump: Callable[[], object]) -> Finding:
    """What becomes of requests that are under way while the clock jumps, and of those after it."""
    running: list[client.Reply] = []
    long = client.body(*[pictures.page()] * 8)
    thread = threading.Thread(target=lambda: running.append(client.post(stack.port, long)))
    thread.start()
    data = client.body(pictures.page())
    head = client.HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data)
    with socket.create_connection((HOST, stack.port), client.SECONDS) as upload:
        upload.sendall(head + data[:1000])
        time.sleep(0.5)
        jump()
        time.sleep(3)  # so that the server looks after its connections in between
        uploaded = _finish(upload, data[1000:])
    thread.join()
    after = client.send_all(stack.port, [client.body(file) for file in pictures.lines(20)], 2)
    totals = [server_timing(reply.headers.get("Server-Timing")).get("total", -1.0) for reply in [*running, *after]]
    statuses = client.statuses(after)
    figure = (
        f"a request under way {running[0].status}, half an upload {uploaded}, after it {counts(statuses)}, "
        f"times stated {min(totals):.2f} to {max(totals):.2f} s"
    )
    good = running[0].status == 200 and uploaded == [200] and set(statuses) == {200}
    return Finding(figure, good and all(0 < total < client.SECONDS for total in totals))


def _finish(upload: socket.socket, data: bytes) -> list[int]:
    """Send the rest; the statuses of the answer, none if the connection was cut."""
    answer = b""
    with suppress(OSError):
        upload.sendall(data)
        answer = upload.makefile("rb").read()
    return client.raw_statuses(answer)


def _stated(stack: Stack) -> float:
    """The service's wall clock, by the header Date."""
    date = client.get(stack.port, "/health/live").headers["Date"]
    return parsedate_to_datetime(date).timestamp()


SCENARIOS = (Scenario("R8", "the services' wall clock jumps an hour forward, back, and an hour backward", r8),)
