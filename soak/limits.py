"""L: bodies at, over and around every limit."""

from __future__ import annotations

import gzip
import io
import json
import socket
import time
from collections.abc import Mapping
from itertools import pairwise

from harness.web import server_timing

from ocr_serving import allocator
from ocr_serving.settings import Settings
from ocr_serving.web.app import create_app
from ocr_serving.web.services import DetService
from soak import client, pictures
from soak.client import DET_PATH, HOST, PATH
from soak.memory import peak_mb, reset_peak
from soak.scenario import SAMPLE, SAMPLE_TEXT, Context, Finding, Scenario, counts

MEGABYTE = 1024 * 1024
LIMIT = Settings().max_body_bytes


def l1(context: Context) -> Finding:
    """Announced too large."""
    stack = context.shared
    stack.ask()
    process = stack.processes["web"]
    before, slowest, closed = reset_peak(process), 0.0, True
    for _ in range(20):
        begin = time.monotonic()
        with socket.create_connection((HOST, stack.port), 5) as connection:
            connection.sendall(client.HEAD + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1))
            answer = connection.makefile("rb").read()
        slowest = max(slowest, time.monotonic() - begin)
        closed &= client.raw_statuses(answer) == [413] and b'"code":"PAYLOAD_TOO_LARGE"' in answer.replace(b" ", b"")
    grown = peak_mb(process) - before
    figure = f"20 times 413 JSON and closed: {closed}, slowest {1000 * slowest:.0f} ms, peak memory {grown:+.1f} MB"
    return Finding(figure, closed and slowest < 0.1 and grown < 1 and stack.is_alive())


def l2(context: Context) -> Finding:
    """Chunked and too large."""
    with context.stack("--max-body-bytes", str(MEGABYTE)) as stack:
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        head = client.HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        served = client.raw_statuses(client.raw(stack.port, head, *[chunk] * 17, b"0\r\n\r\n"))
        alive = stack.is_alive()
    app = create_app(DetService(None), Settings(max_body_bytes=1000))  # type: ignore[arg-type]  # never asked
    plain = app.test_client().post(
        PATH, input_stream=io.BytesIO(b" " * 2000), content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True},
    ).status_code  # fmt: skip
    return Finding(
        f"waitress {served}, plain WSGI with input_terminated {plain}", served == [413] and plain == 413 and alive
    )


def l3(context: Context) -> Finding:
    """Exactly at the limit."""
    with context.stack("--max-body-bytes", str(MEGABYTE)) as stack:
        form = client.body(SAMPLE())
        found = [client.post(stack.port, form.ljust(MEGABYTE + more)).status for more in (-1, 0, 1)]
        chunked = []
        for more in (-100, 1):
            data = form.ljust(MEGABYTE + more)
            head = client.HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
            chunked += client.raw_statuses(client.raw(stack.port, head, body))
        other = {
            kind: client.post(stack.port, form, {"Content-Type": kind}).status
            for kind in ("application/octet-stream", "multipart/form-data; boundary=x")
        }
    figure = (
        f"limit -1, 0, +1: JSON {found}, chunked JSON, whose framing counts, -100 and +1 {chunked}; raw "
        f"and multipart bodies are not accepted: {list(other.values())}"
    )
    return Finding(figure, found == [200, 200, 413] and chunked == [200, 413] and set(other.values()) == {400})


def l4(context: Context) -> Finding:
    """JSON that is legal, or nearly, and means harm."""
    stack = context.shared
    good = client.body(SAMPLE()).decode()
    bodies: Mapping[str, bytes] = {
        "nested 10,000": b'{"feed":' + b"[" * 10_000 + b"]" * 10_000 + b',"fetch":[]}',
        "nested 10,000, unclosed": b'{"feed":' + b"[" * 10_000,
        "1e6 keys": json.dumps({f"k{i}": 0 for i in range(1_000_000)}).encode(),
        "a key twice": good.replace('"fetch"', '"fetch": [], "fetch"').encode(),
        "NaN": good.replace('["res"]', "[NaN]").encode(),
        "BOM": b"\xef\xbb\xbf" + good.encode(),
        "UTF-16": good.encode("utf-16"),
        "not UTF-8": good.replace("res", "\xff").encode("latin-1"),
    }
    replies = {
        name: min((client.post(stack.port, data) for _ in range(5)), key=_server_seconds)
        for name, data in bodies.items()
    }
    figure = ", ".join(f"{name} {r.status} in {1000 * _server_seconds(r):.1f} ms" for name, r in replies.items())
    passed = all(reply.status == 400 and _server_seconds(reply) < 0.05 for reply in replies.values())
    return Finding(figure, passed and stack.is_alive())


def _server_seconds(reply: client.Reply) -> float:
    """From the request's receipt to its answer: 14 MB of keys take longer to arrive."""
    return server_timing(reply.headers.get("Server-Timing")).get("total", client.SECONDS)


def l5(context: Context) -> Finding:
    """Base64 in all its forms."""
    stack = context.shared
    text = json.loads(client.body(SAMPLE()))["feed"][0]["x"]
    safe = text.replace("+", "-").replace("/", "_")
    forms = {
        "lines of 76": ("\n".join(text[i : i + 76] for i in range(0, len(text), 76)), 200),
        "CRLF": ("\r\n".join(text[i : i + 76] for i in range(0, len(text), 76)), 200),
        "URL-safe": (safe, 200 if safe == text else 400),
        "data URI": ("data:image/png;base64," + text, 400),
        "no padding": (text.rstrip("=")[:-1], 400),
        "one character": ("A", 400),
        "empty": ("", 400),
    }
    replies = {
        name: (client.post(stack.port, json.dumps({"feed": [{"x": form}], "fetch": ["res"]}).encode()), wanted)
        for name, (form, wanted) in forms.items()
    }
    figure = ", ".join(f"{name} {reply.status}" for name, (reply, _) in replies.items())
    right = all(r.status == wanted and (wanted != 200 or r.texts == [SAMPLE_TEXT]) for r, wanted in replies.values())
    return Finding(figure, right and stack.is_alive())


def l6(context: Context) -> Finding:
    """Compressed bodies that are damaged, or bombs."""
    stack = context.shared
    bomb = gzip.compress(bytes(600 * MEGABYTE), 1)
    good = gzip.compress(b'{"tensor": []}' * 1000)
    bad = [good[: len(good) // 2], good[:20] + b"\xff" * 20 + good[40:], b"\x1f\x8b" + bytes(50), b"no gzip"]
    packed = {"Content-Encoding": "gzip"}
    kept = 2 * allocator.LARGEST / 1e6
    figures, passed = [], True
    for name, port, path in (("web", stack.port, PATH), ("det", stack.det.port, DET_PATH)):
        process = stack.processes[name]
        megabytes = [process.memory_info().rss / 1e6]
        answered: list[dict[int, int]] = []
        for bodies in (bad * 25, [bomb], [bomb] * 4):
            answered.append(client.statuses(client.post(port, body, packed, path) for body in bodies))
            megabytes.append(process.memory_info().rss / 1e6)
        damaged, first, others = (after - before for before, after in pairwise(megabytes))
        figures.append(
            f"{name} {counts(answered[0])}, {damaged:+.1f} MB; a bomb of 600 MB {counts(answered[1])}, {first:+.1f} MB "
            f"(freed memory that it keeps), four more {others:+.1f} MB"
        )
        passed &= all(400 <= status < 500 for each in answered for status in each)
        passed &= max(damaged, first - kept, others) < 32
    return Finding("; ".join(figures), passed and stack.is_alive())


def l7(context: Context) -> Finding:
    """Too many images."""
    stack = context.shared
    file = pictures.line("x", 24)
    most = client.post(stack.port, client.body(*[file] * 64))
    more = client.post(stack.port, client.body(*[file] * 65))
    pdf = client.post(stack.port, client.body(b"%PDF-1.7\n" + bytes(500)))
    figure = (
        f"64 images {most.status} with {len(most.result or ())} results, 65 images {more.status} "
        f"{more.code}; PDF is no kind that is read: {pdf.status}"
    )
    return Finding(figure, most.status == 200 and len(most.result) == 64 and more.status == 422 and pdf.status == 400)


SCENARIOS = (
    Scenario("L1", "Content-Length one byte over the limit, no body sent, 20 times", l1),
    Scenario("L2", "a chunked body over the limit, on waitress and on a plain WSGI server", l2),
    Scenario("L3", "bodies of the limit and one byte less and more, in every form", l3),
    Scenario("L4", "JSON nested, with a million keys, keys twice, NaN, BOM, in UTF-16", l4),
    Scenario("L5", "base64 as people send it", l5),
    Scenario("L6", "100 malformed compressed requests to each port, and bombs", l6),
    Scenario("L7", "64 and 65 images in a request; a PDF", l7),
)
