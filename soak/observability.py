"""B: what operators see."""

from __future__ import annotations

import json
import re
import uuid

from harness.images import ROOT
from harness.web import server_timing
from prometheus_client.parser import text_string_to_metric_families

from soak import client, pictures
from soak.scenario import Context, Finding, Scenario, Stack, seconds_until


def b1(context: Context) -> Finding:
    """Request ids."""
    with context.stack("--log-format", "json", OCR_LOG_FORMAT="json") as stack:
        replies = [
            client.get(stack.port, path)
            for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/no")
        ]
        replies += [client.post(stack.port, data) for data in (b"{", client.body(b"x"))]
        malformed = client.raw(stack.port, b"GET / HTTP/9.9\r\n\r\n")
        ids = [f"soak-{uuid.uuid4().hex[:8]}" for _ in range(50)]
        bodies = [client.body(file) for file in pictures.lines(50)]
        answered = [
            client.post(stack.port, data, {"X-Request-Id": text}) for data, text in zip(bodies, ids, strict=True)
        ]
        seconds_until(lambda: ids[-1] in stack.det.output and ids[-1] in stack.web.output, 5)
        logged = {"web": _ids(stack.web.output), "det": _ids(stack.det.output)}
    all_have = all("X-Request-Id" in reply.headers for reply in replies) and b"X-Request-Id" in malformed
    echoed = all(reply.headers.get("X-Request-Id") == text for reply, text in zip(answered, ids, strict=True))
    found = {name: sum(text in log for text in ids) for name, log in logged.items()}
    figure = (
        f"every answer has one: {all_have}; 50 given ids echoed: {echoed}, in the web service's log "
        f"{found['web']}, in the det server's {found['det']}"
    )
    return Finding(figure, all_have and echoed and set(found.values()) == {50})


def _ids(output: str) -> set[str]:
    return {json.loads(line).get("request_id", "") for line in output.splitlines() if line.startswith("{")}


def b2(context: Context) -> Finding:
    """Do the stages add up, and the counters."""
    with context.stack() as stack:
        body = client.body((ROOT / "imgs/sign.jpg").read_bytes())
        client.send_all(stack.port, [body] * 3, 1)
        shares = []
        for _ in range(context.options.scaled(50)):
            times = server_timing(client.post(stack.port, body).headers["Server-Timing"])
            shares.append(sum(seconds for stage, seconds in times.items() if stage != "total") / times["total"])
        before = _counted(stack)
        sent = {200: context.options.scaled(500), 400: context.options.scaled(200), 404: context.options.scaled(100)}
        client.send_all(stack.port, [client.body(pictures.line("x", 24))] * sent[200], 4)
        client.send_all(stack.port, [b"{"] * sent[400], 4)
        client.send_all(stack.port, [b"{"] * sent[404], 4, path="/nowhere")
        counted = {status: count - before.get(status, 0) for status, count in _counted(stack).items()}
    apart = max(abs(1 - share) for share in shares)
    same = all(counted.get(status) == count for status, count in sent.items())
    return Finding(
        f"stages add up to {min(shares):.1%} to {max(shares):.1%} of the total; sent {sent}, counted as sent: {same}",
        apart <= 0.05 and same,
    )


def _counted(stack: Stack) -> dict[int, float]:
    return {status: stack.metric("ocr_requests_total", status=str(status)) for status in (200, 400, 404)} | {
        200: stack.metric("ocr_requests_total", status="200", route=client.PATH)
    }


def b3(context: Context) -> Finding:
    """Labels that clients could invent."""
    stack = context.shared
    for path in ("/nowhere", client.PATH):
        client.post(stack.port, b"{", {"X-Request-Id": "warm"}, path)
    client.raw(stack.port, b"BREW / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    _series(stack)  # so that the page counts itself
    before = _series(stack)
    asked, methods = context.options.scaled(1000), 50
    for i in range(asked):
        client.get(stack.port, f"/{uuid.uuid4().hex}?{i}", {"X-Request-Id": uuid.uuid4().hex})
        client.post(stack.port, b"{", {"X-Request-Id": uuid.uuid4().hex, "Authorization": f"Bearer {i}"})
    for i in range(methods):
        client.raw(
            stack.port,
            f"M{chr(65 + i % 26)}{chr(65 + i // 26)} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
        )
    after = _series(stack)
    new = sorted(after - before)
    return Finding(
        f"{len(before)} series before, {len(after)} after {2 * asked + methods} requests with random "
        f"paths, ids, keys and methods; new: {new or 'none'}",
        len(new) <= 16,
    )


def _series(stack: Stack) -> set[str]:
    page = client.get(stack.port, "/metrics").body.decode()
    return {line.rpartition(" ")[0] for line in page.splitlines() if line and not line.startswith("#")}


def b4(context: Context) -> Finding:
    """The form of the metrics page."""
    pages = {"web": (context.shared.port, "/metrics"), "model server": (context.shared.det.port, "/brpc_metrics")}
    documents = " ".join(file.read_text(encoding="utf-8") for file in (ROOT / "docs").glob("*.md"))
    faults, names = [], []
    for where, (port, path) in pages.items():
        for family in text_string_to_metric_families(client.get(port, path).body.decode()):
            names.append(family.name)
            faults += [
                f"{where} {family.name}: {fault}" for fault in _faults(family.name, family.type, family.documentation)
            ]
            if family.name.startswith(("ocr_", "pd_")) and family.name.removesuffix("_created") not in documents:
                faults.append(f"{where} {family.name} is not documented")
    return Finding(f"{len(names)} metrics checked for help, type, name and unit: {faults or 'clean'}", not faults)


def _faults(name: str, kind: str, text: str) -> list[str]:
    """What promtool would say."""
    faults = []
    if not text:
        faults.append("no help")
    if kind in ("unknown", "untyped"):
        faults.append("no type")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        faults.append("name")
    if re.search(r"_(milliseconds|ms|minutes|kilobytes|mb)(_|$)", name):
        faults.append("no base unit")
    if kind != "counter" and name.endswith("_total"):
        faults.append("_total without being a counter")
    return faults


SCENARIOS = (
    Scenario("B1", "X-Request-Id on answers of every kind, and in the logs of the web service and the det server", b1),
    Scenario("B2", "stages of Server-Timing against its total; counters against requests sent", b2),
    Scenario("B3", "series of the metrics under random paths, ids, keys and methods", b3),
    Scenario("B4", "lint of the metrics pages, names looked up in docs/", b4),
)
