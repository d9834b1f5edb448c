"""Connections of a web service: many at once, idle ones, and a clock that jumps meanwhile."""

import contextlib
import logging
import socket
import tempfile
import threading
import time

import pytest
import web_stub
from rpc_peers import wait_until

from ocr_serving import endpoint
from ocr_serving.errors import ConfigError
from ocr_serving.settings import Settings
from ocr_serving.web import http_parser, serving
from ocr_serving.web.app import PATH, create_app

HOUR = 3600
POST = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n".encode()
BODY = web_stub.body()


def test_stalled_uploads_and_idle_connections_hold_up_nobody_and_are_closed(monkeypatch):
    monkeypatch.setattr(http_parser, "PATIENCE_SECONDS", 2.0)
    with web_stub.running() as web, contextlib.ExitStack() as stack:
        stalled, _ = [
            [stack.enter_context(socket.create_connection(("127.0.0.1", web.port), 20)) for _ in range(150)]
            for _ in range(2)
        ]
        for connection in stalled:
            connection.sendall(POST + b"Content-Length: 50000\r\n\r\n{")
        assert web.post().status == 200
        assert web.ask("GET", "/health/live").status == 200
        for connection in stalled:
            connection.settimeout(20)
            assert connection.recv(1) == b""
        assert web.post().status == 200


@pytest.fixture
def jump(monkeypatch):
    """Sets the wall clock so many seconds forward."""
    clock = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: clock() + seconds)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_an_upload_outlives_a_jump_of_the_clock(seconds, jump, monkeypatch):
    monkeypatch.setattr(serving, "_CLEANUP_SECONDS", 0.1)
    with web_stub.running() as web, socket.create_connection(("127.0.0.1", web.port), 20) as upload:
        upload.sendall(POST + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:20])
        assert web.ask("GET", "/health/live").status == 200
        jump(seconds)
        time.sleep(0.2)
        assert web.ask("GET", "/health/live").status == 200
        upload.sendall(BODY[20:])
        assert upload.makefile("rb").read().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("seconds", [0, -HOUR])
def test_an_idle_connection_is_closed_whatever_the_clock_says(seconds, jump, monkeypatch):
    monkeypatch.setattr(serving, "_IDLE_SECONDS", 1)
    monkeypatch.setattr(serving, "_CLEANUP_SECONDS", 0.1)
    with web_stub.running() as web, socket.create_connection(("127.0.0.1", web.port), 20) as idle:
        assert web.ask("GET", "/health/live").status == 200
        jump(seconds)
        idle.settimeout(8)
        assert idle.recv(1) == b""


def test_hundreds_who_come_at_once_do_not_keep_a_probe_waiting():
    bound = endpoint.bind("127.0.0.1", 0)
    server = serving.Server(create_app(web_stub.StubService(), Settings()), bound, Settings())
    with contextlib.ExitStack() as stack:
        *_, probe = [stack.enter_context(socket.create_connection(bound.getsockname(), 20)) for _ in range(900)]
        probe.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        loop = threading.Thread(target=server.run)
        began = time.monotonic()
        loop.start()
        try:
            assert probe.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert time.monotonic() - began < 0.5
        finally:
            server.drain()
            loop.join(30)


@pytest.mark.parametrize(
    ("host", "keys", "warned"), [("0.0.0.0", (), True), ("0.0.0.0", ("0123456789",), False), ("::1", (), False)]
)
def test_who_listens_for_all_and_asks_for_no_key_is_warned(host, keys, warned, caplog):
    settings = Settings(host=host, api_keys=keys)
    with endpoint.bind("127.0.0.1", 0) as bound:
        serving.Server(create_app(web_stub.StubService(), settings), bound, settings)
    assert ("asks for no API key" in caplog.text) == warned


def test_no_more_connections_are_open_than_may_be(monkeypatch):
    """Those beyond wait in the queue of the socket, and are answered when others go."""
    monkeypatch.setattr(serving, "CONNECTIONS", 20)
    with web_stub.running() as web, contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", web.port), 20))
        late = socket.create_connection(("127.0.0.1", web.port), 1)
        late.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            late.recv(1000)
        assert len(web.server._waitress.active_channels) < 20
        stack.close()
        late.settimeout(20)
        with late:
            assert late.recv(1000).startswith(b"HTTP/1.1 200 ")


GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(("ahead", "refused"), [(9, 0), (100, 1)])
def test_a_few_requests_may_be_sent_ahead(ahead, refused):
    """All of 256 kB were parsed at once, which held up everybody."""
    with web_stub.running() as web, socket.create_connection(("127.0.0.1", web.port), 20) as client:
        client.sendall(GET * (ahead - 1) + LAST)
        answer = client.makefile("rb").read()
    assert answer.count(b"HTTP/1.1 200 ") == 9
    assert answer.count(b"At most 8 requests may be sent ahead") == answer.count(b" 400 ") == refused


def test_line_ends_before_a_request_cost_nothing():
    with web_stub.running() as web, socket.create_connection(("127.0.0.1", web.port), 20) as client:
        begin = time.process_time()
        client.sendall(b"\r\n" * 1_000_000 + LAST)
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    assert time.process_time() - begin < 1


@pytest.fixture
def large(monkeypatch):
    """A service whose answers have 8 MB, more than a socket takes, and that waits a second for who is idle."""
    monkeypatch.setattr(serving, "_IDLE_SECONDS", 1)
    monkeypatch.setattr(serving, "_CLEANUP_SECONDS", 0.1)
    with web_stub.running() as web:
        web.service.answer = lambda sources, outputs, *_: {"res": ["x" * 8_000_000]}
        yield web


def test_a_large_answer_needs_no_file(large, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    answer = large.post()
    assert answer.status == 200
    assert len(answer.data) > 8_000_000
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_large_body_needs_no_file(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with web_stub.running() as web:
        assert web.post(BODY + b" " * 2_000_000).status == 200


def test_who_comes_after_the_last_request_does_not_put_off_the_end():
    """Clients that come again and again to be refused would."""
    with web_stub.running() as web, socket.create_connection(("127.0.0.1", web.port), 20) as slow:
        web.service.answer = lambda sources, outputs, *_: {"res": ["x" * 8_000_000]}
        slow.sendall(POST + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        wait_until(lambda: any(c.total_outbufs_len for c in list(web.server._waitress.active_channels.values())))
        web.server.drain()
        wait_until(lambda: not answers(web.port))
        assert len(slow.makefile("rb").read()) > 8_000_000


def answers(port):
    """Whether a new client is answered soon."""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(LAST)
        client.settimeout(0.3)
        try:
            return bool(client.recv(1000))
        except TimeoutError:
            return False


def test_who_reads_no_answer_keeps_no_thread(large):
    request = POST.replace(b"Connection: close\r\n", b"") + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    with socket.create_connection(("127.0.0.1", large.port), 20) as client:
        client.sendall(request * 5)
        wait_until(lambda: large.server._waitress.task_dispatcher.active_count)
        wait_until(lambda: not large.server._waitress.task_dispatcher.active_count)
        wait_until(lambda: not large.server._waitress.active_channels)


def test_paths_are_not_logged_as_they_were_sent(caplog):
    with caplog.at_level(logging.INFO):
        serving._Channel.logger.info("Client disconnected while serving %s" % "/a/patient")  # noqa: UP031
    assert [record.getMessage() for record in caplog.records] == ["Client disconnected."]


def test_too_few_threads_are_said_at_start(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    app = create_app(web_stub.StubService(), Settings())
    with (
        endpoint.bind("127.0.0.1", 0) as bound,
        pytest.raises(ConfigError, match=r"cannot start its .* threads; .* choose a smaller max_queued"),
    ):
        serving.Server(app, bound, Settings())
