"""Connections of a web service: many at once, idle ones, and a clock that jumps meanwhile."""

import contextlib
import socket
import threading
import time

import pytest
import web_stub

from ocr_serving import endpoint
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
