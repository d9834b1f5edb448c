"""The model server's HTTP connections over real sockets: many requests on one, limits, bad manners, leaving."""

import contextlib
import gzip
import socket
import threading
import time

import numpy as np
import pytest
import requests
from http_peers import (
    SHORT,
    assert_alive,
    converse,
    get,
    json_body,
    json_tensor,
    post,
    proto_body,
    raw_request,
    received,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rpc_peers import CAPTURES, assert_every_client_gets_its_own, connect, request, serving, wait_until

from ocr_serving.server.limits import Limits


class TestConnections:
    def test_one_connection_serves_many_requests_also_sent_ahead(self, server):
        requests_ = b""
        for i in range(5):
            body = json_body(i).encode()
            requests_ += raw_request(body, f"Content-Length: {len(body)}", close=i == 4)
        answer = converse(server, requests_)
        assert [f'"float_data":[{2 * i}.0]'.encode() in answer for i in range(5)] == [True] * 5
        assert answer.count(b"HTTP/1.1 200 OK") == 5

    def test_http_1_0(self, server):
        answer = converse(server, b"GET /health HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.endswith(b"OK")

    def test_a_request_may_come_byte_by_byte(self, server):
        body = json_body(21).encode()
        with connect(server.address) as client:
            for byte in raw_request(body, f"Content-Length: {len(body)}"):
                client.send(bytes([byte]))
            assert b'"float_data":[42.0]' in received(client)

    def test_a_chunked_body(self, server):
        def chunks():
            yield json_body(21)[:10].encode()
            yield json_body(21)[10:].encode()

        assert json_tensor(post(server, chunks()))["float_data"] == [42]

    def test_a_body_of_tiny_chunks_is_refused_long_before_its_end(self, server):
        with connect(server.address) as client:
            client.sendall(raw_request(b"2\r\n  \r\n" * 1200, "Transfer-Encoding: chunked"))
            assert b"400 Bad Request" in client.recv(100)
        body = json_body(21).encode()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        assert b'"float_data":[42.0]' in converse(server, raw_request(chunks, "Transfer-Encoding: chunked"))

    def test_a_client_that_asks_first_is_told_to_go_on(self, server):
        body = json_body(1).encode()
        with connect(server.address) as client:
            client.sendall(raw_request(b"", f"Content-Length: {len(body)}", "Expect: 100-continue"))
            assert client.recv(100).startswith(b"HTTP/1.1 100")
            client.sendall(body)
            assert b"200 OK" in received(client)

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"GET /health\r\n\r\n", 400),
            (b"GET /health HTTP/1.1\r\n\r\n", 400),
            (b"GET /health HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400),
            (b"GET /health HTTP/1.1\r\nHost: x\r\nlong: " + b"x" * 20_000, 431),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            (b"GET / HTTP/3.7\r\nHost: x\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ],
    )
    def test_what_is_no_http_is_answered_and_ends_the_connection(self, server, data, status):
        with connect(server.address) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = received(client)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"onnection: close" in answer
        assert f"[{server.address}][E1003]The request is not valid HTTP".encode() in answer
        assert_alive(server)

    def test_no_connections_are_made_for_others(self, server):
        answer = converse(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nCONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 400 Bad Request" in answer

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(at=st.integers(0, 400), junk=st.binary(min_size=1, max_size=20), number=st.integers(1, 4))
    def test_damaged_requests_are_answered_or_hung_up_on(self, server, at, junk, number):
        sent = (CAPTURES / "httpclient" / f"req_{number}.bin").read_bytes()
        at %= len(sent)
        with connect(server.address) as client:
            client.sendall(sent[:at] + junk + sent[at + len(junk) :])
            with contextlib.suppress(OSError):  # hung up on already
                client.shutdown(socket.SHUT_WR)
            answer = received(client)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4"))

    @pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"QUIT\r\n", b"get / HTTP/1.1\r\n\r\n"])
    def test_other_protocols_are_hung_up_on(self, server, data):
        assert converse(server, data) == b""
        assert_alive(server)


class TestLimits:
    LIMITS = Limits(body_bytes=1000)

    def body(self, size):
        return json_body(1).encode().ljust(size)

    @pytest.mark.parametrize("path", [SHORT, "/v2/models/doubler/infer", "/nope"])
    def test_a_body_over_the_limit_is_refused_before_it_is_sent(self, doubler, path):
        with serving(doubler, limits=self.LIMITS) as server, connect(server.address) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"
            client.sendall(head.encode())
            answer = received(client)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"1000 bytes allowed" in answer

    def test_a_refusal_of_head_has_no_body(self, doubler):
        with serving(doubler, limits=self.LIMITS) as server:
            answer = converse(server, b"HEAD /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert (head.split(b" ")[1], body) == (b"413", b"")

    def test_a_client_that_sends_it_all_the_same_can_read_why(self, doubler):
        with serving(doubler, limits=self.LIMITS) as server:
            answer = converse(server, raw_request(bytes(20_000_000), "Content-Length: 20000000"))
            assert answer.startswith(b"HTTP/1.1 413 ")

    @pytest.mark.parametrize(("size", "status"), [(999, 200), (1000, 200), (1001, 413)])
    def test_the_limit_is_exact(self, doubler, size, status):
        with serving(doubler, limits=self.LIMITS) as server:
            assert post(server, self.body(size)).status_code == status
            assert post(server, iter([self.body(size)[:500], self.body(size)[500:]])).status_code == status

    def test_a_small_body_that_unpacks_to_a_large_one(self, doubler):
        with serving(doubler, limits=self.LIMITS) as server:
            packed = gzip.compress(self.body(100_000))
            assert len(packed) < 1000
            answer = post(server, packed, **{"Content-Encoding": "gzip"})
            assert (answer.status_code, "1000 bytes allowed" in answer.text) == (413, True)

    def test_stalled_clients_hold_up_nobody_and_are_closed(self, doubler):
        with serving(doubler, limits=Limits(idle_seconds=1)) as server, contextlib.ExitStack() as stack:
            stalled = [stack.enter_context(connect(server.address)) for _ in range(60)]
            for i, client in enumerate(stalled):
                client.sendall([b"", b"POST ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"][i % 3])
            assert_alive(server)
            for client in stalled:
                assert received(client) == b""
            wait_until(lambda: not server._open)

    def test_headers_may_not_trickle_in_for_ever(self, doubler):
        def trickle():
            with contextlib.suppress(OSError):
                while True:
                    client.sendall(b"a: b\r\n")
                    time.sleep(0.05)

        with serving(doubler, limits=Limits(idle_seconds=0.5)) as server, connect(server.address) as client:
            client.sendall(b"GET /health HTTP/1.1\r\n")
            threading.Thread(target=trickle).start()
            assert received(client) == b""

    def test_a_client_that_never_reads_is_cut_off(self, doubler):
        with serving(doubler, threads=1, limits=Limits(send_seconds=0.5)) as server, connect(server.address) as deaf:
            body = proto_body(np.zeros((1, 8_000_000), np.float32))
            deaf.sendall(raw_request(b"", "Content-Type: application/proto", f"Content-Length: {len(body)}") + body)
            assert_alive(server)
            wait_until(lambda: not server._open)


class TestLeaving:
    def test_a_request_whose_client_left_costs_no_inference(self, doubler):
        body = json_body(-1).encode()
        with serving(doubler, threads=1) as server, connect(server.address) as busy:
            busy.sendall(raw_request(body, f"Content-Length: {len(body)}"))
            assert doubler.started.acquire(timeout=10)
            with connect(server.address) as gone:
                gone.sendall(raw_request(body, f"Content-Length: {len(body)}"))
                wait_until(lambda: server._workers._accepted == 2)
            doubler.release.set()
            assert b"200 OK" in received(busy)
            wait_until(lambda: server._workers._accepted == 0)
            assert doubler.calls == 1
            counted = 'pd_query_request_failure_total{code="CLIENT_LEFT",protocol="http"} 1.0'
            wait_until(lambda: counted in get(server, "/brpc_metrics").text)

    def test_stopping_answers_what_was_accepted_and_refuses_the_rest(self, doubler):
        body = json_body(-1).encode()
        with serving(doubler) as server, connect(server.address) as client, requests.Session() as other:
            other.get(f"http://{server.address}/health", timeout=30)
            client.sendall(raw_request(body, f"Content-Length: {len(body)}", close=False))
            assert doubler.started.acquire(timeout=10)
            drained = []
            stopper = threading.Thread(target=lambda: drained.append(server.stop(30)))
            stopper.start()
            wait_until(lambda: server._workers.draining)
            refused = other.post(f"http://{server.address}{SHORT}", data=json_body(1), timeout=30)
            assert (refused.status_code, refused.headers["x-bd-error-code"]) == (503, "2003")
            assert other.get(f"http://{server.address}/v2/health/ready", timeout=30).status_code == 503
            assert other.get(f"http://{server.address}/v2/health/live", timeout=30).status_code == 200
            doubler.release.set()
            assert b'"float_data":[-2.0]' in received(client)
            stopper.join(10)
            assert drained == [True]

    def test_stopping_lets_a_slow_client_take_its_answer(self, doubler):
        body = proto_body(np.full((1, 8_000_000), -1, np.float32))
        with serving(doubler) as server, connect(server.address) as client:
            client.sendall(raw_request(body, "Content-Type: application/proto", f"Content-Length: {len(body)}"))
            assert doubler.started.acquire(timeout=10)
            stopper = threading.Thread(target=server.stop, args=(30,))
            stopper.start()
            doubler.release.set()
            head = client.recv(1000)
            time.sleep(0.5)  # lets the server come to the end of what it does without waiting; more changes nothing
            assert len(head + received(client)) > 32_000_000
            stopper.join(10)

    def test_vanished_clients_leave_nothing_behind(self, server):
        body = json_body(1).encode()
        whole = raw_request(body, f"Content-Length: {len(body)}", close=False)
        for _ in range(20):
            for end in (10, 60, len(whole) - 3, len(whole)):
                with connect(server.address) as client:
                    client.sendall(whole[:end])
        wait_until(lambda: not server._open)
        wait_until(lambda: not [t for t in threading.enumerate() if t.name == "connection"])
        assert_alive(server)

    def test_every_client_gets_its_own_answers(self, server):
        def ask(asked):
            url = f"http://{server.address}{SHORT}"
            with requests.Session() as session:
                answers = [session.post(url, data=json_body(i), timeout=60) for i in asked]
            return [json_tensor(answer)["float_data"] for answer in answers]

        assert_every_client_gets_its_own(ask)


@pytest.mark.parametrize("begin", [request(1, 1.0)[:20], raw_request(b"", "Content-Length: 100000")])
def test_a_request_that_trickles_in_keeps_no_connection(doubler, begin):
    with serving(doubler, limits=Limits(idle_seconds=0.5)) as server, connect(server.address) as client:
        client.sendall(begin)
        end = time.monotonic() + 10
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                client.sendall(b"\0")
                time.sleep(0.1)
        assert time.monotonic() < end
        wait_until(lambda: not server._open)
        assert_alive(server)
