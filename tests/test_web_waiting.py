"""Requests that come while others are worked on: deadlines, clients that leave, a full queue, the service's end."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
import web_stub
from rpc_peers import wait_until

from ocr_serving.settings import Settings
from ocr_serving.web.app import PATH

GOOD = web_stub.body()
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(GOOD)}\r\n\r\n"
REQUEST = HEAD.encode() + GOOD


@pytest.fixture
def narrow():
    """One request at a time, two waiting."""
    with web_stub.running(Settings(max_running=1, max_queued=2, request_timeout=30)) as running:
        yield running


def busy(web):
    """A request that holds the engine until service.hold is set."""
    web.service.hold.clear()
    first = web.in_background()
    wait_until(lambda: web.service.calls == 1)
    return first


def test_a_deadline_spent_in_the_queue_is_504_and_the_engine_never_hears_of_it(narrow):
    first = busy(narrow)
    answer = narrow.post(X_Request_Timeout="0.2")
    assert (answer.status, json.loads(answer.data)["error"]["code"]) == (504, "DEADLINE_EXCEEDED")
    assert narrow.service.calls == 1
    assert narrow.metric("ocr_dropped_requests_total", reason="expired") == 1
    narrow.service.hold.set()
    assert first.answer().status == 200
    assert narrow.service.calls == 1


def test_a_client_that_leaves_the_queue_is_dropped_and_counted(narrow, caplog):
    first = busy(narrow)
    with socket.create_connection(("127.0.0.1", narrow.port), 20) as connection:
        connection.sendall(REQUEST)
        wait_until(lambda: narrow.metric("ocr_queued_requests") == 1)
    wait_until(lambda: len(narrow.server._waitress.active_channels) == 1)  # it has noticed
    narrow.service.hold.set()
    assert first.answer().status == 200
    wait_until(lambda: narrow.metric("ocr_dropped_requests_total", reason="client_left") == 1)
    assert narrow.service.calls == 1
    assert "Traceback" not in caplog.text


def test_a_client_that_leaves_while_it_is_worked_on_leaves_no_trace(narrow, caplog):
    narrow.service.hold.clear()
    with socket.create_connection(("127.0.0.1", narrow.port), 20) as connection:
        connection.sendall(REQUEST)
        wait_until(lambda: narrow.service.calls == 1)
    narrow.service.hold.set()
    assert narrow.post().status == 200
    wait_until(lambda: narrow.metric("ocr_running_requests") == 0)
    assert "Traceback" not in caplog.text


def test_a_full_queue_refuses_at_once_with_retry_after_and_probes_still_answer(narrow):
    first = busy(narrow)
    waiting = [narrow.in_background() for _ in range(2)]
    wait_until(lambda: narrow.metric("ocr_queued_requests") == 2)
    started = time.monotonic()
    answers = [narrow.post() for _ in range(20)]
    assert {answer.status for answer in answers} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
    assert "max_queued" in answers[0].data.decode()
    assert [narrow.ask("GET", path).status for path in ("/health/live", "/health/ready", "/metrics")] == [200] * 3
    assert time.monotonic() - started < 5
    narrow.service.hold.set()
    assert [pending.answer().status for pending in (first, *waiting)] == [200] * 3


def test_a_request_of_many_images_lets_small_ones_wait_for_their_turn(narrow):
    """It took long because of its images, which says nothing of those that hold one, as most do."""
    assert [narrow.post().status for _ in range(2)] == [200, 200]
    narrow.service.seconds = 2.5
    assert narrow.post(web_stub.body(*[(30, 20)] * 64)).status == 200
    narrow.service.seconds = 0.0
    narrow.service.calls = 0
    first = busy(narrow)
    waiting = narrow.in_background(X_Request_Timeout="5")
    wait_until(lambda: narrow.metric("ocr_queued_requests") == 1)
    narrow.service.hold.set()
    assert [first.answer().status, waiting.answer().status] == [200, 200]
    assert narrow.metric("ocr_dropped_requests_total", reason="no_time") == 0


@pytest.mark.parametrize("text", ["", "soon", "0", "0.05", "1e-9", "-1", "nan", "inf", "1_0", "1,5", "0x5"])
def test_a_timeout_that_is_no_number_of_seconds_is_400(narrow, text):
    answer = narrow.post(X_Request_Timeout=text)
    assert answer.status == 400
    assert "X-Request-Timeout must be a number of seconds" in answer.data.decode()


@pytest.mark.parametrize(("text", "seconds"), [("2.5", 2.5), ("1e1", 10), ("1e9", 30)])
def test_the_timeout_reaches_the_engine_capped_by_the_setting(narrow, text, seconds):
    assert narrow.post(X_Request_Timeout=text).status == 200
    assert seconds - 1 < narrow.service.deadlines[-1] <= seconds


def test_draining_answers_what_was_accepted_and_refuses_what_comes(narrow):
    first = busy(narrow)
    second = narrow.in_background()
    wait_until(lambda: narrow.metric("ocr_queued_requests") == 1)
    narrow.server.drain()
    ready = narrow.ask("GET", "/health/ready")
    assert (ready.status, json.loads(ready.data)["status"]) == (503, "shutting down")
    refused = narrow.post()
    assert (refused.status, json.loads(refused.data)["error"]["code"]) == (503, "SHUTTING_DOWN")
    assert refused.headers["Connection"] == "close"
    assert narrow.ask("GET", "/health/live").status == 200
    narrow.service.hold.set()
    assert [first.answer().status, second.answer().status] == [200, 200]
    wait_until(lambda: not _accepts(narrow.port))


def test_draining_does_not_wait_for_ever():
    with web_stub.running(Settings(drain_seconds=0.3)) as web:
        stuck = busy(web)
        web.server.drain()
        wait_until(lambda: not _accepts(web.port))
        web.service.hold.set()
    with contextlib.suppress(http.client.HTTPException, OSError):  # its connection was cut
        stuck.answer()


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_options_of_concurrent_requests_do_not_mix():
    """Each gets its own outputs, whatever the others ask for."""
    wrong = []

    def ask(fetch, keys):
        data = json.loads(GOOD) | {"fetch": fetch}
        for _ in range(20):
            answer = web.post(json.dumps(data).encode())
            if json.loads(answer.data)["result"].keys() != keys:
                wrong.append(answer.data)

    threads = [threading.Thread(target=ask, args=case) for case in (([], {"res"}), (["scores"], {"res", "scores"})) * 3]
    with web_stub.running() as web:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
