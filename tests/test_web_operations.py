"""What operators see of a web service: ids, times, metrics, health, keys."""

import json
import logging
import re
import threading
from pathlib import Path
from typing import get_args

import pytest
import web_stub
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rpc_peers import wait_until

from ocr_serving import request_id
from ocr_serving.errors import UpstreamUnavailable
from ocr_serving.settings import Settings
from ocr_serving.timings import Stage
from ocr_serving.web.app import PATH
from ocr_serving.web.backend import Backend

DOCS = Path(__file__).parent.parent / "docs" / "operations.md"
KEYS = ("first-secret-key", "zweiter-schlüssel", "clé-voilà", "in-latin-1-\udce9")
"""In UTF-8 the third one ends with C3 A0, of which A0 alone is a space; the last one is no UTF-8."""


@pytest.fixture(scope="module")
def web():
    with web_stub.running(Settings(max_body_bytes=100_000)) as running:
        yield running


ANSWERS = {
    "200": ("POST", PATH, web_stub.body()),
    "400": ("POST", PATH, b"{"),
    "404": ("POST", "/nothing", b""),
    "405": ("GET", PATH, None),
    "413": ("POST", PATH, b" " * 200_000),
    "live": ("GET", "/health/live", None),
    "metrics": ("GET", "/metrics", None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_every_answer_carries_the_requests_id(web, case):
    assert web.ask(*ANSWERS[case], X_Request_Id="my-Id_1.2").headers["X-Request-Id"] == "my-Id_1.2"
    made = {web.ask(*ANSWERS[case]).headers["X-Request-Id"] for _ in range(2)}
    assert len(made) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", identity) for identity in made)


@given(st.text(max_size=80))
def test_an_id_that_could_do_harm_is_replaced(text):
    accepted = request_id.accept(text)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", accepted)
    assert (accepted == text) == bool(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text))


@pytest.mark.parametrize("bad", ["../../etc/passwd", "a" * 65, "a b", "a;b", "\xe4", "%0d%0a", ""])
def test_ids_in_the_header_are_cleaned(web, bad):
    identity = web.post(X_Request_Id=bad).headers["X-Request-Id"]
    assert identity != bad
    assert re.fullmatch(r"[0-9a-f]{32}", identity)


def test_server_timing_adds_up(web):
    web.service.seconds = 0.2
    try:
        answer = web.post()
    finally:
        web.service.seconds = 0.0
    times = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["Server-Timing"]))
    assert list(times) == [name for name in get_args(Stage) if name in times] + ["total"]
    assert {"queue", "parse", "decode", "rec", "encode"} <= times.keys()
    stages = sum(float(times[name]) for name in get_args(Stage) if name in times)
    assert float(times["rec"]) >= 200
    assert stages == pytest.approx(float(times["total"]), rel=0.05)


def test_one_line_a_request_with_its_id(web, caplog):
    with caplog.at_level(logging.INFO, "ocr_serving.access"):
        web.post(X_Request_Id="line-1")
        web.ask("POST", "/a%0Ab", b"")
        web.ask("GET", "/health/live")
    wait_until(lambda: len(caplog.records) >= 2)
    lines = [record for record in caplog.records if record.name == "ocr_serving.access"]
    said = [line.getMessage().partition(" in ")[0] for line in lines]
    assert said == [f"POST {PATH} 200", "POST other 404 NOT_FOUND"]
    assert [(line.fields["status"], line.fields["code"]) for line in lines] == [(200, ""), (404, "NOT_FOUND")]
    assert lines[0].fields["stages_ms"].keys() >= {"queue", "rec"}


def test_requests_are_counted_and_no_label_comes_from_outside(web):
    before = {status: web.metric("ocr_requests_total", route=PATH, status=status) for status in ("200", "400")}
    for _ in range(3):
        web.post()
    web.post(b"{")
    assert web.metric("ocr_requests_total", route=PATH, status="200") == before["200"] + 3
    assert web.metric("ocr_requests_total", route=PATH, status="400") == before["400"] + 1
    series = len(web.ask("GET", "/metrics").data.splitlines())
    others = web.metric("ocr_requests_total", route="other", status="404")
    for i in range(50):
        web.ask("POST", f"/path/{i}", b"", X_Request_Id=f"id-{i}")
    assert len(web.ask("GET", "/metrics").data.splitlines()) <= series + 40, "one more route and status, at most"
    assert web.metric("ocr_requests_total", route="other", status="404") == others + 50


def test_metrics_are_well_formed_and_documented(web):
    web.post()
    page = web.ask("GET", "/metrics")
    assert page.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = [f for f in text_string_to_metric_families(page.data.decode()) if not f.name.endswith("_created")]
    documented = DOCS.read_text(encoding="utf-8")
    ours = [family for family in families if family.name.startswith("ocr_")]
    assert len(ours) >= 9
    for family in ours:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.documentation, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert family.type != "histogram" or name.endswith(("_seconds", "_size"))
        assert f"`{name}" in documented, f"docs/operations.md does not say what {name} is"


def test_the_docs_name_every_metric_that_there_is_and_no_other(web):
    page = web.ask("GET", "/metrics").data.decode()
    for name in set(re.findall(r"`(ocr_\w+?)[`{]", DOCS.read_text(encoding="utf-8"))) - set(Settings.__struct_fields__):
        assert f"# TYPE {name.removesuffix('_total')}" in page, name


def backend(role, check):
    return Backend(role, f"{role}_model", "openvino", "f32", check)


def test_ready_says_which_model_does_not_answer_and_why():
    down = threading.Event()

    def det(deadline):
        assert 0 < deadline.remaining() <= 2
        if down.is_set():
            raise UpstreamUnavailable("No model server answers at 127.0.0.1:9293.")

    with web_stub.running(Settings(), [backend("det", det), backend("rec", lambda deadline: None)]) as web:
        answer = web.ask("GET", "/health/ready")
        assert (answer.status, json.loads(answer.data)) == (200, {"status": "ready", "faults": {}})
        down.set()
        wait_until(lambda: web.ask("GET", "/health/ready").status == 503)
        faults = json.loads(web.ask("GET", "/health/ready").data)
        assert faults == {
            "status": "not ready",
            "faults": {"det": "No model server answers at 127.0.0.1:9293."},
        }
        assert web.ask("GET", "/health/live").status == 200
        down.clear()
        wait_until(lambda: web.ask("GET", "/health/ready").status == 200)
        assert web.metric("ocr_model_info", role="det", model="det_model", engine="openvino", precision="f32") == 1


def test_probes_do_not_pile_up_on_a_model_that_hangs():
    asked, hold = threading.Semaphore(0), threading.Event()

    def hang(deadline):
        asked.release()
        hold.wait(60)

    with web_stub.running(Settings(), [backend("det", hang)]) as web:
        first = threading.Thread(target=lambda: web.ask("GET", "/health/ready"))
        first.start()
        assert asked.acquire(timeout=30)
        for _ in range(30):
            answer = web.ask("GET", "/health/ready")
            assert (answer.status, json.loads(answer.data)["faults"]) == (503, {"det": "not asked yet"})
        hold.set()
        first.join()
        assert not asked.acquire(blocking=False), "one at a time"
        assert web.ask("GET", "/health/ready").status == 200


def test_a_check_that_breaks_says_nothing_of_the_inside(caplog):
    def broken(deadline):
        raise ZeroDivisionError("secret /etc/path")

    with web_stub.running(Settings(), [backend("rec", broken)]) as web:
        faults = json.loads(web.ask("GET", "/health/ready").data)["faults"]
    assert faults == {"rec": "The check failed; the log says why."}
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture(scope="module")
def locked():
    with web_stub.running(Settings(api_keys=KEYS)) as running:
        yield running


@pytest.mark.parametrize("key", [key.encode("utf-8", "surrogateescape").decode("latin-1") for key in KEYS])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_key_opens_the_service(locked, key, scheme):
    assert locked.post(Authorization=f"{scheme} {key}").status == 200


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong-secret", "Basic first-secret-key", "first-secret-key",
     "Bearer first-secret-ke", "Bearer first-secret-keyx", "Bearer first-secret-key, Bearer first-secret-key"],
)  # fmt: skip
def test_without_a_known_key_the_answer_is_401(locked, header):
    calls = locked.service.calls
    answer = locked.post(**({} if header is None else {"Authorization": header}))
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["X-Request-Id"]
    assert json.loads(answer.data)["error"]["code"] == "UNAUTHENTICATED"
    assert b"secret" not in answer.data
    assert locked.service.calls == calls


def test_which_paths_need_a_key():
    probes = ("/health/ready", "/metrics", "/openapi.json")
    for public, status in ((True, 200), (False, 401)):
        with web_stub.running(Settings(api_keys=KEYS, public_metrics=public)) as web:
            assert web.ask("GET", "/health/live").status == 200
            assert [web.ask("GET", path).status for path in probes] == [status] * 3
            assert [web.ask("GET", path, Authorization=f"Bearer {KEYS[0]}").status for path in probes] == [200] * 3
            assert web.ask("POST", "/nothing").status == 401


def test_one_tenant_who_floods_does_not_lock_out_another():
    first, second = ({"Authorization": f"Bearer {key.encode().decode('latin-1')}"} for key in KEYS[:2])
    with web_stub.running(Settings(api_keys=KEYS, max_running=1, max_queued=6)) as web:
        web.service.seconds = 0.02
        stop = threading.Event()

        def flood():
            while not stop.is_set():
                web.post(**first)

        flooding = [threading.Thread(target=flood) for _ in range(12)]
        for thread in flooding:
            thread.start()
        try:
            wait_until(lambda: web.metric("ocr_dropped_requests_total", reason="queue_full") > 5)
            assert [web.post(**second).status for _ in range(10)] == [200] * 10
        finally:
            stop.set()
            for thread in flooding:
                thread.join()
