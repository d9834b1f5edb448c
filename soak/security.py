"""S: what must not get in, and what must not get out."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from statistics import median

import server_process
from harness.images import ROOT

from soak import client, hostile
from soak.scenario import SAMPLE, Context, Finding, Scenario, counts, seconds_until

_BANNED = re.compile(
    r"\bpickle\b|\ballow_pickle\s*=\s*True|\byaml\.load\(|(?<![.\w])eval\(|(?<![.\w])exec\(|shell\s*=\s*True|\bmarshal\b|os\.system\("
)
_LEAK = re.compile(r"Traceback|\.py\b|site-packages|/(?:home|root|usr|work|tmp|etc)/|0x[0-9a-f]{8}|ocr_serving\.")


def s1(context: Context) -> Finding:
    """URLs in the place of images."""
    stack = context.shared
    connected = 0
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        port = trap.getsockname()[1]
        hosts = [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "0.0.0.0",
            "2130706433",
            "0177.0.0.1",
            "[::ffff:127.0.0.1]",
            "127.1",
        ]
        urls = [f"http://{host}:{port}/x.png" for host in hosts]
        urls += [
            "http://169.254.169.254/",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "http://10.0.0.1/",
            "http://100.64.0.1/",
        ]
        bodies = [client.body(url.encode()) for url in urls]
        bodies += [client.body().replace(b'"feed": []', f'"feed": [{{"x": "{url}"}}]'.encode()) for url in urls]
        found = [client.post(stack.port, body) for body in bodies]
        try:
            trap.accept()
            connected += 1
        except TimeoutError:
            pass
    statuses = client.statuses(found)
    figure = (
        f"there is no URL input: {len(found)} requests with URLs {counts(statuses)}, {connected} "
        "connections to the trap"
    )
    return Finding(figure, set(statuses) == {400} and not connected)


def s2(context: Context) -> Finding:
    """Names and ids from outside."""
    with context.stack("--log-format", "json") as stack:
        ids = ["../../etc/passwd", "a b", "a" * 65, "a" * 60_000, "é", '"}', "ok-1._A", "\x1b[31m", "a\x0bb", ""]
        answered = [
            client.post(stack.port, b"{", {"X-Request-Id": text.encode("utf-8").decode("latin-1")}) for text in ids
        ]
        echoed = [reply.headers.get("X-Request-Id", "") for reply in answered]
        legal = all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text) for text in echoed)
        kept = [text for text, back in zip(ids, echoed, strict=True) if text == back]
        client.raw(
            stack.port,
            client.HEAD + b"X-Request-Id: a\r\nX-Evil: 1\r\nContent-Length: 1\r\n\r\n{",
            seconds=1,
        )
        for text in ("../../etc/passwd", "a\nb", "x" * 1_000_000, "☃"):
            client.post(stack.port, client.body(SAMPLE(), fetch=(text,)))
        for path in (
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/ocr/prediction%0d%0aX-Evil:1",
            "/" + "a" * 60_000,
        ):
            answered.append(client.get(stack.port, path))
            answered.append(client.get(stack.det.port, "/v2/models" + path))
        lines = [line for line in stack.web.output.splitlines() if line.startswith("{")]
        injected = [line for line in lines if "evil" in line.lower() or "passwd" in line or len(line) > 5000]
        statuses = client.statuses(answered)
        alive = stack.is_alive()
    figure = (
        f"ids echoed unchanged: {kept}, all {len(echoed)} legal: {legal}; {counts(statuses)}; log lines "
        f"with any of it: {len(injected)} of {len(lines)}"
    )
    good = not injected and all(400 <= status < 500 for status in statuses)
    return Finding(figure, legal and kept == ["ok-1._A"] and good and alive)


def s3(context: Context) -> Finding:
    """The gate on source, and arrays of objects."""
    found = [
        f"{file.name}:{number}"
        for file in sorted((ROOT / "src").rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if _BANNED.search(line.partition("#")[0]) and '"""' not in line
    ]
    rules = "S102,S301,S302,S307,S506,S602,S604,S605,S701"
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", rules, "src"], cwd=ROOT, capture_output=True
    )
    det = context.shared.det.port
    tensor = {"name": "x", "shape": [1], "datatype": "OBJECT", "data": ["x"]}
    statuses = [
        client.post(
            det, json.dumps({"inputs": [tensor]}).encode(), path=f"/v2/models/{context.models.det.name}/infer"
        ).status,
        client.post(det, b'{"tensor":[{"elem_type":99,"shape":[1],"float_data":[1]}]}', path=client.DET_PATH).status,
    ]
    figure = (
        f"pickle, eval, exec, shell, yaml.load in src: {found or 'none'}; ruff's rules {rules}: "
        f"{'clean' if not ruff.returncode else 'found some'}; object and unknown types: {statuses}"
    )
    return Finding(figure, not found and not ruff.returncode and all(400 <= status < 500 for status in statuses))


def s4(context: Context) -> Finding:
    """API keys."""
    with context.stack("--api-keys", "correct-horse-battery", "--public-metrics", "false") as stack:
        cases = {
            "none": {},
            "wrong": {"Authorization": "Bearer wrong-horse-battery"},
            "empty": {"Authorization": "Bearer "},
            "prefix": {"Authorization": "Bearer correct-horse-batter"},
            "other scheme": {"Authorization": "Basic correct-horse-battery"},
            "right": {"Authorization": "Bearer correct-horse-battery"},
        }
        found = {
            case: client.post(stack.port, client.body(SAMPLE()), headers).status for case, headers in cases.items()
        }
        twice = (
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer wrong\r\n"
            b"Authorization: Bearer correct-horse-battery\r\n\r\n"
        )
        found["two headers"] = (client.raw_statuses(client.raw(stack.port, twice)) or [0])[0]
        pages = {
            path: client.get(stack.port, path).status
            for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json")
        }
        wrong: dict[str, list[float]] = {key: [] for key in ("Xorrect-horse-battery", "correct-horse-batterX")}
        for _ in range(context.options.scaled(1000)):
            for key, times in wrong.items():
                times.append(client.get(stack.port, "/metrics", {"Authorization": f"Bearer {key}"}).seconds)
    first, last = (median(times) for times in wrong.values())
    figure = (
        f"{found}; without a key {pages}; medians of a key wrong in its first and in its last letter "
        f"{1e6 * first:.0f} and {1e6 * last:.0f} us (digests, hmac.compare_digest)"
    )
    right = all(status == (200 if case == "right" else 401) for case, status in found.items())
    return Finding(figure, right and list(pages.values()) == [200, 401, 401, 401] and abs(first - last) < 0.2 * first)


def s5(context: Context) -> Finding:
    """Where it listens."""
    stack = context.shared
    bound = {
        name: {c.laddr.ip for c in process.net_connections("tcp") if c.status == "LISTEN"}
        for name, process in stack.processes.items()
    }
    command, port = context.web_command(1, "--host", "0.0.0.0", door="rec_debugger")
    with server_process.running(command, port, ROOT) as web:
        warned = seconds_until(lambda: "asks for no API key" in web.output, 10) is not None
    command, port = context.web_command(
        1, "--host", "0.0.0.0", "--api-keys", "correct-horse-battery", door="rec_debugger"
    )
    with server_process.running(command, port, ROOT) as web:
        time.sleep(1)
        quiet = "asks for no API key" not in web.output
    figure = (
        f"listening: {', '.join(f'{name} {sorted(ips)}' for name, ips in bound.items())}; 0.0.0.0 without "
        f"a key warns: {warned}, with one does not: {quiet}"
    )
    return Finding(figure, all(ips == {"127.0.0.1"} for ips in bound.values()) and warned and quiet)


def s6(context: Context) -> Finding:
    """What errors tell."""
    if "answers" not in context.notes:
        hostile.run(context)
    text = context.notes["answers"].figure
    leaks = sorted({found[0] for found in _LEAK.finditer(text)})
    return Finding(
        f"{len(text):,} characters of answers of the hostile run: {leaks or 'no path, trace or address in them'}",
        not leaks,
    )


def s7(context: Context) -> Finding:
    """Framing that two readers may read in two ways."""
    stack = context.shared
    found, at_det = {}, {}
    for name, data in hostile.FRAMES.items():
        found[name] = client.raw_statuses(client.raw(stack.port, data, seconds=3, end=True))
        at_det[name] = client.raw_statuses(client.raw(stack.det.port, data, seconds=3, end=True))
    good = {name: len(s) <= 1 and all(400 <= status < 500 for status in s) for name, s in [*found.items()]}
    good_det = {name: len(s) <= 1 and all(400 <= status < 500 for status in s) for name, s in [*at_det.items()]}
    bad = [name for name, ok in good.items() if not ok], [name for name, ok in good_det.items() if not ok]
    figure = (
        f"{len(found)} kinds ({', '.join(found)}): each 4xx or closed; else on the web port: "
        f"{bad[0] or 'none'}, on the model server's: {bad[1] or 'none'}"
    )
    return Finding(figure, not any(bad) and stack.is_alive())


def s8(context: Context) -> Finding:
    """Schemathesis against the OpenAPI document."""
    stack, tests = context.shared, ROOT / "tests"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "soak" / "schemathesis.toml")]
    command += ["run", f"http://127.0.0.1:{stack.port}/openapi.json", "--checks", "all", "--seed", "1", "--no-color"]
    command += ["--max-examples", str(context.options.examples), "--request-timeout", "60"]
    command += ["--phases", "examples,coverage,fuzzing"]
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": "data.schemathesis_hooks", "PYTHONPATH": str(tests)}
    try:
        done = subprocess.run(command, cwd="/tmp", env=environ, capture_output=True, text=True, timeout=1800)
    except subprocess.TimeoutExpired:
        return Finding("did not end within half an hour", False)
    if "No module named" in done.stderr:
        return Finding("schemathesis is not installed", None)
    print(done.stdout[-6000:] if done.returncode else "", file=sys.stderr)
    cases = re.search(r"(\d+) generated", done.stdout)
    kinds = re.findall(r"^- (.+)$", done.stdout, re.MULTILINE)
    figure = f"{cases[1] if cases else '?'} generated cases, all checks: {sorted(set(kinds)) or 'nothing found'}"
    return Finding(figure, done.returncode == 0 and stack.is_alive())


SCENARIOS = (
    Scenario("S1", "URLs of every kind in the place of an image, with a local trap", s1),
    Scenario("S2", "traversal, CRLF, escapes, a megabyte, unicode in ids, names and paths", s2),
    Scenario("S3", "grep and ruff's bandit rules over src; arrays of objects", s3),
    Scenario("S4", "API keys missing, wrong, empty, twice; time of a wrong one", s4),
    Scenario("S5", "addresses listened on, and the warning", s5),
    Scenario("S6", "a search for paths, traces and names of modules in all answers of the hostile run", s6),
    Scenario("S7", "request framing that is ambiguous or broken, on both ports", s7),
    Scenario("S8", "schemathesis against /openapi.json", s8, "examples"),
)
