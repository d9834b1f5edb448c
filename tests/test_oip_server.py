"""The Open Inference Protocol v2 on the model server's port: Triton's own clients, and plain requests."""

import json
import threading

import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from http_peers import get
from rpc_peers import remote, serving, wait_until
from tritonclient.utils import InferenceServerException

from ocr_serving.server.limits import Limits

DATATYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip
INFER = "/v2/models/doubler/infer"
X = {"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@pytest.fixture(params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def triton(request):
    """Triton's client library for HTTP or gRPC."""
    return request.param


@pytest.fixture
def client(triton, server):
    client = triton.InferenceServerClient(server.address)
    yield client
    client.close()


def tensor(triton, array, datatype="FP32", name="image", **options):
    made = triton.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array, **options)
    return made


def post(server, body, path=INFER, **headers):
    return requests.post(f"http://{server.address}{path}", data=body, headers=headers, timeout=30)


class TestTritonClients:
    def test_liveness_and_readiness(self, client):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("doubler")
        assert client.is_model_ready("doubler", "1")
        assert not client.is_model_ready("nope")
        assert not client.is_model_ready("doubler", "2")

    def test_metadata(self, triton, client):
        options = {"as_json": True} if triton is tritonclient.grpc else {}
        about = client.get_server_metadata(**options)
        assert (about["name"], about["extensions"]) == ("ocr-serving", ["binary_tensor_data"])
        model = client.get_model_metadata("doubler", **options)
        assert (model["name"], model["versions"]) == ("doubler", ["1"])
        [taken] = model["inputs"]
        assert (taken["name"], taken["datatype"], [int(dim) for dim in taken["shape"]]) == ("image", "FP32", [-1, 2])
        assert [given["name"] for given in model["outputs"]] == ["out", "FAIL"]

    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_every_datatype(self, triton, client, datatype):
        array = np.array([[0, 1, 1]], DATATYPES[datatype])
        answer = client.infer("doubler", [tensor(triton, array, datatype)], model_version="1", request_id="7")
        np.testing.assert_array_equal(answer.as_numpy("out"), array * array.dtype.type(2), strict=True)
        about = answer.get_response(as_json=True) if triton is tritonclient.grpc else answer.get_response()
        assert (about["id"], about["model_name"], about["model_version"]) == ("7", "doubler", "1")
        assert about["outputs"][0]["datatype"] == datatype

    def test_strings_arrive_as_their_bytes(self, triton, client):
        array = np.array(["ab", "ä"], np.object_)
        answer = client.infer("doubler", [tensor(triton, array, "BYTES")])
        assert answer.as_numpy("out").tolist() == [2 * byte % 256 for byte in b"ab\0\xc3\xa4"]

    @pytest.mark.parametrize("sent", [True, False])
    @pytest.mark.parametrize("asked", [True, False])
    def test_binary_or_json_each_way(self, server, sent, asked):
        array = np.random.default_rng(0).random((3, 1000), np.float32)
        http = tritonclient.http
        with http.InferenceServerClient(server.address) as client:
            output = http.InferRequestedOutput("out", binary_data=asked)
            answer = client.infer("doubler", [tensor(http, array, binary_data=sent)], outputs=[output])
        np.testing.assert_array_equal(answer.as_numpy("out"), array * 2, strict=True)
        assert ("data" in answer.get_response()["outputs"][0]) != asked

    @pytest.mark.parametrize("request_packing", [None, "gzip", "deflate"])
    @pytest.mark.parametrize("answer_packing", [None, "gzip", "deflate"])
    def test_packed_requests_and_answers(self, server, request_packing, answer_packing):
        array = np.zeros((3, 1000), np.float32)
        http = tritonclient.http
        with http.InferenceServerClient(server.address) as client:
            answer = client.infer(
                "doubler",
                [tensor(http, array)],
                request_compression_algorithm=request_packing,
                response_compression_algorithm=answer_packing,
            )
        np.testing.assert_array_equal(answer.as_numpy("out"), array, strict=True)

    def test_packed_grpc(self, server):
        array = np.zeros((3, 1000), np.float32)
        with tritonclient.grpc.InferenceServerClient(server.address) as client:
            answer = client.infer("doubler", [tensor(tritonclient.grpc, array)], compression_algorithm="gzip")
        np.testing.assert_array_equal(answer.as_numpy("out"), array, strict=True)

    def test_many_requests_at_once(self, triton, server):
        with triton.InferenceServerClient(server.address, **self.concurrency(triton)) as client:
            arrays = [np.full((1, 2), i, np.float32) for i in range(50)]
            if triton is tritonclient.http:
                pending = [client.async_infer("doubler", [tensor(triton, array)]) for array in arrays]
                answers = [each.get_result() for each in pending]
            else:
                answers, done = {}, threading.Semaphore(0)

                def keep(i, result, error):
                    answers[i] = result or error
                    done.release()

                for i, array in enumerate(arrays):
                    client.async_infer(
                        "doubler", [tensor(triton, array)], lambda result, error, i=i: keep(i, result, error)
                    )
                for _ in arrays:
                    assert done.acquire(timeout=30)
            for i, array in enumerate(arrays):
                np.testing.assert_array_equal(answers[i].as_numpy("out"), array * 2)

    def concurrency(self, triton):
        return {"concurrency": 8} if triton is tritonclient.http else {}


class TestErrors:
    def refused(self, client, *args, **options):
        with pytest.raises(InferenceServerException) as refused:
            client.infer(*args, **options)
        return refused.value.status(), refused.value.message()

    @pytest.mark.parametrize(
        ("model", "name", "fetch", "statuses", "sentence"),
        [
            ("nope", "image", "out", ("404", "NOT_FOUND"), "No such model; this server has: doubler."),
            ("doubler", "nope", "out", ("400", "INVALID_ARGUMENT"), "unknown name or comes twice"),
            ("doubler", "image", "nope", ("400", "INVALID_ARGUMENT"), "Unknown fetch; the model has: out."),
            ("doubler", "image", "FAIL", ("500", "INTERNAL"), "The engine broke on this input."),
        ],
    )
    def test_faults(self, triton, client, model, name, fetch, statuses, sentence):
        given = [tensor(triton, np.zeros((1, 2), np.float32), name=name)]
        status, message = self.refused(client, model, given, outputs=[triton.InferRequestedOutput(fetch)])
        assert status == (statuses[0] if triton is tritonclient.http else f"StatusCode.{statuses[1]}")
        assert sentence in message

    def test_what_is_not_offered_is_refused_and_not_passed_over(self, triton, client):
        shared = triton.InferInput("image", [1, 2], "FP32")
        shared.set_shared_memory("region", 8)
        assert "Shared memory is not offered" in self.refused(client, "doubler", [shared])[1]
        given = [tensor(triton, np.zeros((1, 2), np.float32))]
        asked = [triton.InferRequestedOutput("out", class_count=2)]
        assert "Classification" in self.refused(client, "doubler", given, outputs=asked)[1]
        with pytest.raises(InferenceServerException):
            client.get_model_config("doubler")

    def test_a_time_limit_spent_in_the_line_costs_no_inference(self, triton, doubler):
        with serving(doubler, threads=1) as server, triton.InferenceServerClient(server.address) as client:
            busy = threading.Thread(target=self.occupy, args=(server,))
            busy.start()
            assert doubler.started.acquire(timeout=10)
            threading.Timer(0.3, doubler.release.set).start()
            given = [tensor(triton, np.zeros((1, 2), np.float32))]
            status, message = self.refused(client, "doubler", given, timeout=1)  # a microsecond
            assert status == ("504" if triton is tritonclient.http else "StatusCode.DEADLINE_EXCEEDED")
            assert "ran out" in message
            busy.join(10)

    def occupy(self, server):
        with remote(server.address) as client:
            client.predict({"image": np.array([[-1]], np.float32)})

    def test_a_full_line_is_told_from_a_fault(self, triton, doubler):
        with (
            serving(doubler, threads=1, limits=Limits(waiting=0)) as server,
            triton.InferenceServerClient(server.address) as client,
        ):
            busy = threading.Thread(target=self.occupy, args=(server,))
            busy.start()
            assert doubler.started.acquire(timeout=10)
            status, message = self.refused(client, "doubler", [tensor(triton, np.zeros((1, 2), np.float32))])
            assert status == ("503" if triton is tritonclient.http else "StatusCode.UNAVAILABLE")
            assert "1 unanswered requests" in message
            assert client.is_server_live()
            doubler.release.set()
            busy.join(10)

    def test_a_bug_is_an_answer_without_its_details(self, triton, client, doubler):
        doubler.predict = lambda *_: 1 / 0
        _, message = self.refused(client, "doubler", [tensor(triton, np.zeros((1, 2), np.float32))])
        assert message == "The server failed; its log says more."


class TestHttp:
    """As the standard's text shows it, without a client library."""

    def test_an_inference(self, server):
        answer = post(
            server, json.dumps({"id": "42", "inputs": [{**X, "data": [[1.5, 2]]}], "outputs": [{"name": "out"}]})
        )
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json() == {
            "model_name": "doubler",
            "model_version": "1",
            "id": "42",
            "outputs": [{"name": "out", "datatype": "FP32", "shape": [1, 2], "data": [3, 4]}],
        }

    def test_the_binary_extension(self, server):
        given = {**X, "parameters": {"binary_data_size": 8}}
        del given["data"]
        head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
        body = head + np.array([1, 2], np.float32).tobytes()
        answer = post(server, body, **{"Inference-Header-Content-Length": str(len(head))})
        assert answer.headers["Content-Type"] == "application/octet-stream"
        size = int(answer.headers["Inference-Header-Content-Length"])
        assert json.loads(answer.content[:size])["outputs"][0]["parameters"] == {"binary_data_size": 8}
        assert np.frombuffer(answer.content[size:], np.float32).tolist() == [2, 4]

    @pytest.mark.parametrize("size", ["x", "-1", "1e3", "99999", "²", "9" * 5000])
    def test_a_wrong_size_of_the_json(self, server, size):
        answer = post(server, "{}", **{"Inference-Header-Content-Length": size.encode()})
        assert answer.status_code == 400
        assert "Inference-Header-Content-Length" in answer.json()["error"]

    @pytest.mark.parametrize(
        ("path", "answer"),
        [
            ("/v2/health/live", {"live": True}),
            ("/v2/health/ready", {"ready": True}),
            ("/v2/models/doubler/ready", {"name": "doubler", "ready": True}),
            ("/v2/models/doubler/versions/1/ready", {"name": "doubler", "ready": True}),
            ("/v2/models/%64oubler/ready", {"name": "doubler", "ready": True}),
        ],
    )
    def test_health(self, server, path, answer):
        assert get(server, path).json() == answer

    @pytest.mark.parametrize(
        "path",
        ["/v2/", "/v2/health", "/v2/models", "/v2/models/", "/v2/models/nope", "/v2/models/doubler/versions/2",
         "/v2/models/doubler/versions", "/v2/models/doubler/infer", "/v2/models/doubler/x/y", "/v2x"],
    )  # fmt: skip
    def test_unknown_paths(self, server, path):
        answer = get(server, path)
        assert answer.status_code == 404
        if path != "/v2x":
            assert set(answer.json()) == {"error"}

    def test_the_versioned_path(self, server):
        path = "/v2/models/doubler/versions/1/infer"
        assert post(server, json.dumps({"inputs": [X]}), path).json()["outputs"][0]["data"] == [2, 4]

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            ("{", "not valid JSON"),
            ('{"inputs": [{"name": "image"}]}', "missing required field"),
            (
                json.dumps({"inputs": [{**X, "data": [1]}]}),
                "1 elements of float32 do not fill the shape [1, 2].",
            ),
            (json.dumps({"inputs": []}), "takes exactly these inputs: image"),
            (json.dumps({"inputs": [X, X]}), "comes twice"),
        ],
    )
    def test_bad_bodies(self, server, body, sentence):
        answer = post(server, body)
        assert (answer.status_code, set(answer.json())) == (400, {"error"})
        assert sentence in answer.json()["error"]

    def test_counted_by_protocol(self, server):
        post(server, json.dumps({"inputs": [X]}))
        post(server, "{")
        with tritonclient.grpc.InferenceServerClient(server.address) as client:
            client.infer("doubler", [tensor(tritonclient.grpc, np.zeros((1, 2), np.float32))])
        wait_until(lambda: server._workers._accepted == 0)
        lines = get(server, "/brpc_metrics").text.splitlines()
        assert 'pd_query_request_success_total{protocol="oip-http"} 1.0' in lines
        assert 'pd_query_request_failure_total{code="INVALID_ARGUMENT",protocol="oip-http"} 1.0' in lines
        assert 'pd_query_request_success_total{protocol="oip-grpc"} 1.0' in lines
