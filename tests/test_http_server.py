"""The model server's HTTP side over real sockets: genuine requests, every form, errors, limits and bad manners."""

import base64
import contextlib
import gzip
import json
import socket
import threading
import time
import zlib

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rpc_peers import CAPTURES, connect, numbers, remote, serving, wait_until

from ocr_serving.server.limits import Limits
from ocr_serving.wire import messages
from ocr_serving.wire.tensor import Tensor

SHORT = "/GeneralModelService/inference"
LONG = "/baidu.paddle_serving.predictor.general_model.GeneralModelService/inference"
TYPES = {0: "int64", 1: "float32", 2: "int32", 3: "float64", 4: "int16", 5: "float16", 7: "uint8", 8: "int8", 9: "bool"}
FIELDS = {0: "int64_data", 1: "float_data", 2: "int_data", 3: "float64_data", 9: "bool_data"}


def post(server, body, content_type="application/json", path=SHORT, **headers):
    headers = {"Content-Type": content_type, "Accept-Encoding": "identity", **headers}
    return requests.post(f"http://{server.address}{path}", data=body, headers=headers, timeout=30)


def get(server, path):
    return requests.get(f"http://{server.address}{path}", timeout=30)


def json_body(*values, **more):
    tensor = {"float_data": values, "elem_type": 1, "shape": [1, len(values)], "name": "x"}
    return json.dumps({"tensor": [tensor], **more})


def proto_body(array, fetch=()):
    return b"".join(messages.encode_request([Tensor("x", "image", array)], fetch))


def json_tensor(answer):
    [output] = answer.json()["outputs"]
    [tensor] = output["tensor"]
    return tensor


def proto_array(body):
    [output] = messages.decode_response(memoryview(body)).outputs
    return output.tensors[0].unpack()


def assert_alive(server):
    with remote(server.address) as client:
        assert client.predict({"image": numbers(1, 2)})["out"].tolist() == [[2, 4]]
    assert json_tensor(post(server, json_body(3)))["float_data"] == [6]


def converse(server, data):
    """Everything the server sends until it closes the connection."""
    with connect(server.address) as client:
        client.sendall(data)
        return received(client)


def received(client):
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            answer += data
    return answer


def raw_request(body, *lines, close=True):
    head = [f"POST {SHORT} HTTP/1.1", "Host: x", *lines, *(["Connection: close"] if close else [])]
    return "\r\n".join([*head, "", ""]).encode() + body


class TestForms:
    @pytest.mark.parametrize("number", [1, 2, 3, 4])
    def test_genuine_requests(self, server, number):
        sent = (CAPTURES / "httpclient" / f"req_{number}.bin").read_bytes()
        answer = converse(server, sent.replace(b"Connection: keep-alive", b"Connection: close"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert (b"Content-Type: application/proto" in head) == (number == 1)
        if b"content-encoding: gzip" in head:
            body = gzip.decompress(body)
        if number == 4:
            assert json.loads(body)["outputs"][0]["tensor"][0]["shape"] == [8]
            return
        expected = np.tile(np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4), (1, 1, 4, 4) if number == 3 else 1) * 2
        if number == 1:
            array = proto_array(body)
        else:
            tensor = json.loads(body)["outputs"][0]["tensor"][0]
            array = np.array(tensor["float_data"], np.float32).reshape(tensor["shape"])
        np.testing.assert_array_equal(array, expected, strict=True)

    @pytest.mark.parametrize("path", [SHORT, LONG, SHORT.replace("inference", "debug"), SHORT + "?a=b"])
    @pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
    def test_both_paths_and_any_method(self, server, path, method):
        answer = requests.request(method, f"http://{server.address}{path}", data=json_body(1.5, 2), timeout=30)
        assert answer.status_code == 200
        assert answer.json()["outputs"] == [
            {
                "tensor": [
                    {"float_data": [3, 4], "elem_type": 1, "shape": [1, 2], "name": "graph_out", "alias_name": "out"}
                ],
                "engine_name": "GeneralInferOp_0",
            }
        ]
        assert len(answer.json()["profile_time"]) == 2

    @pytest.mark.parametrize("content_type", ["application/proto", "application/x-protobuf", "application/grpc+proto"])
    def test_protobuf_types(self, server, content_type):
        answer = post(server, proto_body(numbers(4)), content_type)
        assert answer.headers["Content-Type"] == content_type
        assert proto_array(answer.content).tolist() == [[8]]

    @pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/x-www-form-urlencoded"])
    def test_every_other_type_is_taken_for_json(self, server, content_type):
        answer = post(server, json_body(4), content_type)
        assert json_tensor(answer)["float_data"] == [8]
        assert answer.headers["Content-Type"] == content_type

    def test_a_content_type_may_hold_any_bytes(self, server):
        body = json_body(4).encode()
        head = raw_request(b"", f"Content-Length: {len(body)}", "Content-Type: application/x; name=?")
        answer = converse(server, head.replace(b"?", b"\xe9") + body)
        assert b"\r\nContent-Type: application/x; name=\xe9\r\n" in answer
        assert b'"float_data":[8.0]' in answer

    def test_without_a_content_type_the_answer_says_json(self, server):
        answer = converse(server, raw_request(b'{"tensor": []}', "Content-Length: 14"))
        assert b"\r\nContent-Type: text/plain" in answer  # the model wants an input
        body = json_body(1).encode()
        answer = converse(server, raw_request(body, f"Content-Length: {len(body)}"))
        assert b"\r\nContent-Type: application/json" in answer

    @pytest.mark.parametrize("elem_type", TYPES)
    def test_every_element_type_in_both_forms(self, server, elem_type):
        array = np.array([[0, 1, 1]], TYPES[elem_type])
        doubled = array * array.dtype.type(2)
        np.testing.assert_array_equal(
            proto_array(post(server, proto_body(array), "application/proto").content), doubled, strict=True
        )
        if elem_type in FIELDS:
            data = {FIELDS[elem_type]: array.ravel().tolist()}
        else:
            data = {"tensor_content": base64.b64encode(array.tobytes()).decode()}
        tensor = {**data, "elem_type": elem_type, "shape": [1, 3], "name": "x"}
        answer = json_tensor(post(server, json.dumps({"tensor": [tensor]})))
        assert answer.get("elem_type", 0) == elem_type
        if elem_type in FIELDS:
            assert answer[FIELDS[elem_type]] == doubled.ravel().tolist()
        else:
            assert base64.b64decode(answer["tensor_content"]) == doubled.tobytes()

    @pytest.mark.parametrize("elem_type", [6, 10, 99])
    def test_types_that_no_array_has_are_refused_in_words(self, server, elem_type):
        answer = post(server, json.dumps({"tensor": [{"elem_type": elem_type, "name": "x"}]}))
        assert answer.status_code == 400
        assert f"elem_type {elem_type}, which is not supported; supported are 0 (int64), 1 (float32)" in answer.text

    def test_packed_requests(self, server):
        body = json_body(*range(1000)).encode()
        for encoding, packed in [("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)]:
            answer = post(server, packed, **{"Content-Encoding": encoding})
            assert json_tensor(answer)["float_data"] == [2 * i for i in range(1000)]

    def test_answers_are_packed_when_asked_and_worth_it(self, server):
        large, small = json_body(*range(1000)), json_body(1)
        for body, asked, packed in [
            (large, "gzip, deflate", True),
            (large, "gzip;q=0.5", True),
            (large, "gzip;q=0", False),
            (large, "identity", False),
            (small, "gzip", False),
        ]:
            answer = post(server, body, **{"Accept-Encoding": asked})
            assert ("Content-Encoding" in answer.headers) == packed
            assert json_tensor(answer)["shape"][0] == 1

    def test_a_head_request_gets_the_head(self, server):
        answer = requests.head(f"http://{server.address}/health", timeout=30)
        assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, "2", b"")


class TestErrors:
    def check(self, server, answer, status, code, sentence):
        assert (answer.status_code, answer.headers["x-bd-error-code"]) == (status, str(code))
        assert answer.headers["Content-Type"] == "text/plain"
        assert answer.text.startswith(f"[{server.address}][E{code}]")
        assert sentence in answer.text

    @pytest.mark.parametrize(
        ("body", "content_type", "sentence"),
        [
            ("{", "application/json", "general_model.Request, Invalid json format"),
            ('{"tensor": 1}', "application/json", "got `int` - at `$.tensor`"),
            (b"\x0a\xff", "application/proto", "Fail to parse http body as baidu.paddle_serving"),
            ("", "application/json", "takes exactly these inputs: image"),
            (json_body(1, fetch_var_names=["nope"]), "application/json", "Unknown fetch; the model has: out."),
        ],
    )
    def test_the_callers_faults(self, server, body, content_type, sentence):
        self.check(server, post(server, body, content_type), 400, 1003, sentence)

    @pytest.mark.parametrize("encoding", ["br", "gzip, gzip"])
    def test_unknown_encodings(self, server, encoding):
        answer = post(server, json_body(1), **{"Content-Encoding": encoding})
        self.check(server, answer, 400, 1003, "use gzip, deflate or none")

    def test_damaged_gzip(self, server):
        answer = post(server, gzip.compress(b"{}" * 100)[:-9], **{"Content-Encoding": "gzip"})
        self.check(server, answer, 400, 1003, "cut off")

    @pytest.mark.parametrize("path", ["/nope", "/GeneralModelService", "/GeneralModelService/nope", "/health/"])
    def test_unknown_paths(self, server, path):
        self.check(server, get(server, path), 404, 1002, "Fail to find method")

    def test_a_failing_engine(self, server):
        answer = post(server, json_body(1, fetch_var_names=["FAIL"]))
        self.check(server, answer, 500, -5100, "InferService inference failed!")

    def test_a_bug_is_an_answer_without_its_details(self, server, doubler):
        doubler.predict = lambda *_: 1 / 0
        answer = post(server, json_body(1))
        self.check(server, answer, 500, -5000, "]The server failed; its log says more.")

    def test_a_full_line(self, doubler):
        with serving(doubler, threads=1, limits=Limits(waiting=0)) as server, connect(server.address) as busy:
            body = json_body(-1).encode()
            busy.sendall(raw_request(body, f"Content-Length: {len(body)}"))
            assert doubler.started.acquire(timeout=10)
            self.check(server, post(server, json_body(1)), 503, 2004, "1 unanswered requests")
            assert get(server, "/health").text == "OK"
            doubler.release.set()
            assert b"200 OK" in received(busy)


class TestPages:
    def test_health(self, server):
        answer = get(server, "/health")
        assert (answer.status_code, answer.text, answer.headers["Content-Type"]) == (200, "OK", "text/plain")

    def test_every_page_of_the_index_exists(self, server):
        title, *paths = get(server, "/").text.split("\n")
        assert title.startswith("ocr-serving ")
        for path in paths:
            assert get(server, path).status_code == (400 if path == SHORT else 200), path

    def test_status_names_the_models(self, server):
        assert "models: doubler" in get(server, "/status").text

    def test_metrics_count_what_was_served(self, server):
        for _ in range(3):
            post(server, json_body(1))
        post(server, "{")
        with remote(server.address) as client:
            client.predict({"image": numbers(1)})
        answer = get(server, "/brpc_metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = answer.text.splitlines()
        assert 'pd_query_request_success_total{protocol="http"} 3.0' in lines
        assert 'pd_query_request_failure_total{code="INVALID_ARGUMENT",protocol="http"} 1.0' in lines
        assert 'pd_query_request_success_total{protocol="brpc"} 1.0' in lines
        assert 'pd_inference_count_total{model="doubler"} 4.0' in lines


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
        failed = []

        def many(offset):
            with requests.Session() as session:
                for i in range(offset, offset + 30):
                    answer = session.post(f"http://{server.address}{SHORT}", data=json_body(i), timeout=60)
                    if json_tensor(answer)["float_data"] != [2 * i]:
                        failed.append(i)

        threads = [threading.Thread(target=many, args=(1000 * n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert not failed
