"""The model server's HTTP answers over real sockets: genuine requests, every form, errors and pages."""

import base64
import gzip
import json
import zlib

import numpy as np
import pytest
import requests
from http_peers import (
    SHORT,
    converse,
    get,
    json_body,
    json_tensor,
    post,
    proto_array,
    proto_body,
    raw_request,
    received,
)
from rpc_peers import CAPTURES, connect, numbers, remote, serving

from ocr_serving.server.limits import Limits

LONG = "/baidu.paddle_serving.predictor.general_model.GeneralModelService/inference"
TYPES = {0: "int64", 1: "float32", 2: "int32", 3: "float64", 4: "int16", 5: "float16", 7: "uint8", 8: "int8", 9: "bool"}
FIELDS = {0: "int64_data", 1: "float_data", 2: "int_data", 3: "float64_data", 9: "bool_data"}


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
        assert f"elem_type {elem_type} is not supported; supported are 0 (int64), 1 (float32)" in answer.text

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
