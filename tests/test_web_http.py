"""The HTTP server under requests that are hostile, broken, slow or too large."""

import contextlib
import io
import itertools
import json
import re
import socket
import time

import psutil
import pytest
import web_stub
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rpc_peers import wait_until

from ocr_serving.errors import BadInput
from ocr_serving.settings import Settings
from ocr_serving.web import http_parser
from ocr_serving.web.app import PATH, create_app

LIMIT = 100_000
POST = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()


@pytest.fixture(scope="module")
def web():
    with web_stub.running(Settings(max_body_bytes=LIMIT, max_buffered_bytes=2 * LIMIT)) as running:
        yield running


def converse(port: int, data: bytes, finish: bool = True) -> bytes:
    """All that the server says to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                said += part
        return said


def statuses(said: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", said)]


GOOD = web_stub.body()
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n" + f"{len(GOOD):x}\r\n".encode() + GOOD + b"\r\n0\r\n\r\n"
LENGTH = f"Content-Length: {len(GOOD)}\r\n".encode()
HOSTILE = {
    "length and chunked": POST + LENGTH + CHUNKED,
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + GOOD,
    "two lengths": POST + LENGTH + b"Content-Length: 3\r\n\r\n" + GOOD,
    "the same length twice": POST + LENGTH + LENGTH + b"\r\n" + GOOD,
    "a negative length": POST + b"Content-Length: -5\r\n\r\n",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nabcde",
    "a hex length": POST + b"Content-Length: 0x5\r\n\r\nabcde",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" + CHUNKED,
    "chunked twice in one": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": (POST + CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a folded header": POST + b"X: a\r\n b\r\n" + LENGTH + b"\r\n" + GOOD,
    "a space before the colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "a bare line feed": POST + b"X: a\nY: b\r\n\r\n",
    "a chunk size that is none": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
    "a signed chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /health/live\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.0": b"GET /health/live HTTP/3.0\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "our own RPC": b"PRPC" + bytes(60),
    "random bytes": bytes(range(128, 256)) * 4,
    "a lower-case method": b"get /health/live HTTP/1.1\r\n\r\n",
    "no path": b"GET\r\n\r\n",
    "a huge header": b"GET /health/live HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": b"GET /health/live HTTP/1.1\r\n" + b"A: b\r\n" * 12_000 + b"\r\n",
    "a transfer coding that is unknown": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "the transfer coding of old": POST + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + GOOD,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_proxy_may_read_otherwise_is_refused_and_the_connection_closed(web, case):
    """Each is followed by a second request, which must never be answered: that would be smuggling."""
    calls = web.service.calls
    said = converse(web.port, HOSTILE[case] + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert statuses(said) == [431 if case in ("a huge header", "many headers") else 400]
    head, _, data = said.partition(b"\r\n\r\n")
    error = json.loads(data)["error"]
    assert error["code"] == "INVALID_ARGUMENT"
    assert error["message"]
    assert b"X-Request-Id" in head
    assert web.service.calls == calls
    assert web.ask("GET", "/health/live").status == 200


def test_a_bug_before_a_request_has_its_turn_is_an_answer_without_its_details(web, monkeypatch):
    monkeypatch.setattr(web.app.gate, "enter", lambda *_: 1 / 0)
    answer = web.post()
    assert answer.status == 500
    assert json.loads(answer.data)["error"]["code"] == "INTERNAL"
    assert b"division" not in answer.data


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(1, 50))
@example(data=b"\r\x00", cut=1)
@example(data=b"\r\n" + POST + b"\r\n", cut=1)
def test_any_bytes_are_parsed_to_a_request_or_a_refusal(data, cut):
    """However they are cut into packets; and nothing but an error of ours comes out."""
    parsed = [_parse([data])]
    parsed.append(_parse([data[i : i + cut] for i in range(0, len(data), cut)]))
    assert parsed[0] == parsed[1]


def _parse(packets):
    from waitress.adjustments import Adjustments

    adjustments = Adjustments(max_request_header_size=65536, max_request_body_size=LIMIT)
    parser = http_parser.Parser(adjustments, LIMIT, lambda: None)
    for packet in packets:
        while packet and not parser.completed:
            packet = packet[parser.received(packet) :]
    return parser.completed, getattr(parser.error, "code", None)


@pytest.mark.parametrize(
    "framing", [b"1\r\n \r\n" * 1_000_000, b"1;" + b"a" * 5_000_000, b"0\r\n" + b"X: y\r\n" * 1_000_000]
)
def test_chunks_that_are_all_framing_are_refused_soon(framing):
    """Tiny chunks, an endless size line, endless trailers: waitress would copy them over and over."""
    with web_stub.running() as web:
        started = time.monotonic()
        said = converse(web.port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + framing)
        assert statuses(said) == [400]
        assert b"chunks" in said
        assert time.monotonic() - started < 5


def test_a_chunked_body_in_sensible_pieces_is_read(web):
    data = GOOD + b" " * 50_000
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in [data[i : i + 40] for i in range(0, len(data), 40)]
    )
    said = converse(web.port, POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert statuses(said) == [200]


@pytest.mark.parametrize(("excess", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_the_limit_of_a_chunked_body_is_that_of_its_data(web, excess, status):
    data = GOOD + b" " * (LIMIT + excess - len(GOOD))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in [data[i : i + 1000] for i in range(0, len(data), 1000)])
    said = converse(web.port, POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert statuses(said) == [status]


def test_a_body_announced_too_large_is_refused_before_it_is_sent(web):
    process = psutil.Process()
    before, started = process.memory_info().rss, time.monotonic()
    for expect in (b"", b"Expect: 100-continue\r\n"):
        said = converse(web.port, POST + expect + b"Content-Length: 60000000000\r\n\r\n")
        assert statuses(said) == [413]
    assert time.monotonic() - started < 1
    assert process.memory_info().rss - before < 2e6


@pytest.mark.parametrize("length", [b"Content-Length: 30000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_client_that_sends_all_of_a_body_too_large_still_gets_its_answer(web, length):
    body = b"1c9c380\r\n" * (b"chunked" in length) + bytes(30_000_000)
    with socket.create_connection(("127.0.0.1", web.port), 20) as connection:
        connection.sendall(POST + length + body)
        assert statuses(connection.makefile("rb").read()) == [413]


def test_a_client_that_asks_first_is_told_to_go_on(web):
    with socket.create_connection(("127.0.0.1", web.port), 20) as connection:
        connection.sendall(POST + b"Connection: close\r\nExpect: 100-continue\r\n" + LENGTH + b"\r\n")
        assert statuses(connection.recv(1000)) == [100]
        connection.sendall(GOOD)
        assert statuses(connection.makefile("rb").read()) == [200]


def test_bodies_in_memory_are_bounded_in_all(web):
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", web.port), 20))
            connection.sendall(POST + f"Content-Length: {LIMIT}\r\n\r\n".encode() + b" " * (LIMIT - 1))
        wait_until(lambda: web.post().status == 503)
        answer = web.post()
        assert json.loads(answer.data)["error"]["code"] == "OVERLOADED"
        assert f"{2 * LIMIT} bytes (max_buffered_bytes)" in answer.data.decode()
        assert answer.headers["Retry-After"] == "1"
        assert web.ask("GET", "/health/live").status == 200
    wait_until(lambda: web.post().status == 200)


def test_bodies_that_have_come_count_until_they_are_answered():
    announced = POST + f"Connection: close\r\nContent-Length: {LIMIT - 1}\r\n\r\n".encode()
    limits = Settings(max_body_bytes=LIMIT, max_buffered_bytes=2 * LIMIT)
    with web_stub.running(limits) as web, contextlib.ExitStack() as stack:
        web.service.hold.clear()
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", web.port), 20)) for _ in range(3)]
        for connection in held:
            connection.sendall(announced + GOOD.ljust(LIMIT - 1))
        wait_until(lambda: web.service.calls == 3)
        assert statuses(converse(web.port, announced)) == [503]
        web.service.hold.set()
        assert [statuses(connection.makefile("rb").read()) for connection in held] == [[200]] * 3


def test_bodies_that_are_only_announced_keep_nobody_out(web):
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", web.port), 20))
            connection.sendall(POST + f"Content-Length: {LIMIT}\r\n\r\n".encode() + b" ")
        wait_until(lambda: len(web.server._waitress.active_channels) >= 30)
        assert [web.post().status for _ in range(5)] == [200] * 5


def test_a_body_that_fills_the_memory_is_refused_while_it_comes():
    million = 1_000_000
    with web_stub.running(Settings(max_body_bytes=8 * million, max_buffered_bytes=million)) as web:
        said = converse(web.port, POST + f"Content-Length: {8 * million}\r\n\r\n".encode() + b" " * (2 * million))
        assert statuses(said) == [503]
        assert b"max_buffered_bytes" in said
        wait_until(lambda: web.post().status == 200)


def test_a_chunked_body_over_the_limit_is_413_on_any_server():
    """As a WSGI server passes it that does not count: no length, and an input that ends."""
    app = create_app(web_stub.StubService(), Settings(max_body_bytes=LIMIT))
    for size, status in ((LIMIT, "400"), (LIMIT + 1, "413")):
        environ = {
            "REQUEST_METHOD": "POST", "PATH_INFO": PATH, "SERVER_NAME": "x", "SERVER_PORT": "80",
            "CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(b" " * size), "wsgi.input_terminated": True,
            "wsgi.errors": io.StringIO(), "wsgi.url_scheme": "http", "SERVER_PROTOCOL": "HTTP/1.1",
        }  # fmt: skip
        answered = []
        b"".join(app(environ, lambda line, headers, answered=answered: answered.append(line)))
        assert answered[0].startswith(status)


@pytest.mark.parametrize("burst", [0, 60_000_000])
def test_a_sender_must_come_to_a_least_rate(burst, monkeypatch):
    """At any time: who has sent much may not stall for ever after it."""
    from waitress.adjustments import Adjustments

    clock = time.monotonic()

    def stalled(after: float) -> bool:
        monkeypatch.setattr(time, "monotonic", lambda: clock + after)
        return parser.is_stalled()

    parser = http_parser.Parser(Adjustments(), LIMIT, lambda: None)
    enough = http_parser.LEAST_RATE * http_parser.PATIENCE_SECONDS
    parser.body_bytes_received = burst + enough
    assert [stalled(29), stalled(31)] == [False, False]
    parser.body_bytes_received += enough
    assert [stalled(60), stalled(62)] == [False, False]
    parser.body_bytes_received += enough - 1
    assert [stalled(91), stalled(93)] == [False, True]


def parser_of(no_room):
    from waitress.adjustments import Adjustments

    adjustments = Adjustments(inbuf_overflow=10_000_000)
    return http_parser.Parser(adjustments, 10_000_000, no_room)


def test_no_room_is_told_before_the_body_is_asked_for():
    parser = parser_of(lambda: BadInput("full"))
    parser.received(POST + b"Expect: 100-continue\r\n" + LENGTH + b"\r\n")
    assert parser.completed
    assert not parser.expect_continue
    assert str(parser.error.error) == "full"


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1e8480\r\n"]
)
def test_room_is_looked_for_now_and_then(framing):
    """A look goes through all connections: at every 4 KiB it kept probes waiting for seconds."""
    looks = []
    parser = parser_of(lambda: looks.append(parser.body_bytes_received))
    data = POST + framing + b" " * 2_000_000
    while data and not parser.completed:
        data = data[parser.received(data[:65536]) :]
    assert looks[0] == 0
    assert min(after - before for before, after in itertools.pairwise(looks)) >= 262_144
    assert len(looks) >= 6
