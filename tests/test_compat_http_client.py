"""The HTTP and gRPC client under its old name: genuine requests repeated, answers and errors of real servers read."""

import contextlib
import gzip
import io
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest
from rpc_peers import CAPTURES, Doubler, serving

from ocr_serving import model_writer
from ocr_serving.errors import (
    BadInput,
    BadUpstream,
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    NotFound,
    Overloaded,
    UpstreamUnavailable,
)
from ocr_serving.model_dir import Variable
from ocr_serving.wire import general_model_pb2 as pb
from paddle_serving_client import HttpClient

IMAGE = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
IMAGES = [Variable("x", "image", 1, (3, 2, 4))]
STRINGS = [Variable("x", "image", 20, (1,))]
TWO = [Variable("a", "a", 1, (2,)), Variable("b", "b", 0, (2,))]
OUT = [Variable("s0", "out", 1, (3,))]
METHOD = "/baidu.paddle_serving.predictor.general_model.GeneralModelService/inference"


@pytest.fixture
def client(tmp_path):
    made = []

    def make(feeds=IMAGES, **options):
        conf = tmp_path / "serving_client_conf.prototxt"
        model_writer.write_conf(conf, feeds, OUT)
        client = HttpClient(**options)
        client.load_client_config([str(tmp_path)])
        made.append(client)
        return client

    yield make
    for each in made:
        each.close()


class Server:
    """A real HTTP server that keeps the requests and gives every one the same answer."""

    def __init__(self, body=b"", content_type="application/proto", status=200, headers=()):
        requests = self.requests = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                requests.append((self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                for name, value in [("Content-Type", content_type), ("Content-Length", len(body)), *headers]:
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def response():
    made = pb.Response()
    made.outputs.add(engine_name="e").tensor.add(alias_name="out", elem_type=1, shape=[1, 2], float_data=[1, 2.5])
    return made


def capture(number):
    """A genuine request: its path, headers and body."""
    stream = io.BytesIO((CAPTURES / "httpclient" / f"req_{number}.bin").read_bytes())
    path = stream.readline().split()[1].decode()
    headers = parse_headers(stream)
    body = stream.read()
    return path, headers, gzip.decompress(body) if headers["Content-Encoding"] == "gzip" else body


class TestRequests:
    def test_proto_is_the_genuine_one_byte_for_byte(self, client):
        with Server(response().SerializeToString()) as server:
            made = client()
            made.connect([server.address])
            result = made.predict(feed={"image": IMAGE}, fetch=["out"], batch=False)
        [(path, headers, body)] = server.requests
        genuine_path, genuine_headers, genuine_body = capture(1)
        assert (path, body) == (genuine_path, genuine_body)
        assert headers["Content-Type"] == genuine_headers["Content-Type"]
        assert isinstance(result, pb.Response)
        assert result == response()

    @pytest.mark.parametrize(
        ("number", "feeds", "feed", "fetch"),
        [(2, IMAGES, {"image": IMAGE}, ["out"]), (4, STRINGS, {"image": "aGVsbG8="}, None)],
    )
    def test_json_says_what_the_genuine_one_says(self, client, number, feeds, feed, fetch):
        with Server(b'{"outputs":[]}', "application/json") as server:
            made = client(feeds)
            made.set_http_proto(False)
            made.connect(f"http://{server.address}")
            result = made.predict(feed=feed, fetch=fetch)
        [(path, headers, body)] = server.requests
        genuine_path, genuine_headers, genuine_body = capture(number)
        assert path == genuine_path
        assert headers["Content-Type"] == genuine_headers["Content-Type"]
        assert json.loads(body) == json.loads(genuine_body)
        assert result == {"outputs": []}

    def test_gzip_both_ways(self, client):
        large = {"image": np.concatenate([IMAGE[None]] * 8)}
        packed = gzip.compress(b'{"outputs":[1]}')
        with Server(packed, "application/json", headers=[("Content-Encoding", "gzip")]) as server:
            made = client()
            made.set_http_proto(False)
            made.set_request_compress(True)
            made.set_response_compress(True)
            made.connect(server.address)
            assert made.predict(large, ["out"], batch=True) == {"outputs": [1]}
            made.predict({"image": IMAGE * 0}, ["out"])
        (_, headers, body), (_, small_headers, small_body) = server.requests
        _, genuine_headers, _ = capture(3)
        for name in ("Content-Encoding", "Accept-Encoding"):
            assert headers[name] == genuine_headers[name] == "gzip"
        assert json.loads(gzip.decompress(body))["tensor"][0]["shape"] == [8, 3, 2, 4]
        assert "Content-Encoding" not in small_headers, (
            "what is small is not worth it; the original summed up all calls"
        )
        assert json.loads(small_body)

    def test_answers_are_not_asked_for_as_gzip_by_default(self, client):
        with Server(response().SerializeToString()) as server:
            made = client()
            made.connect(server.address)
            made.predict({"image": IMAGE})
        assert server.requests[0][1]["Accept-Encoding"] == "identity"

    @pytest.mark.parametrize(
        ("feeds", "feed", "batch", "shape"),
        [
            (IMAGES, {"image": IMAGE}, False, [1, 3, 2, 4]),
            (IMAGES, [{"image": IMAGE[None]}], True, [1, 3, 2, 4]),
            (IMAGES, IMAGE, False, [1, 3, 2, 4]),
            (IMAGES, {"image": IMAGE.tolist()}, False, [1, 3, 2, 4]),
            (IMAGES, {"image": [IMAGE.tolist(), IMAGE.tolist()]}, True, [2, 3, 2, 4]),
            (IMAGES, {"image": IMAGE.ravel().tolist()}, False, [1, 3, 2, 4]),
            (STRINGS, {"image": b"aGVsbG8="}, False, [1]),
            (STRINGS, "aGVsbG8=", True, [1]),
            (STRINGS, {"image": ["a", "b"]}, True, [2, 1]),
            (TWO, [[1, 2], np.array([3, 4])], False, [1, 2]),
            ([Variable("n", "n", 2, (1,))], {"n": 7}, False, [1]),
        ],
    )
    def test_feeds_of_every_form(self, client, feeds, feed, batch, shape):
        with Server(response().SerializeToString()) as server:
            made = client(feeds)
            made.connect(server.address)
            made.predict(feed, ["out"], batch=batch)
        sent = pb.Request.FromString(server.requests[0][2])
        assert [each.alias_name for each in sent.tensor] == [variable.alias for variable in feeds]
        assert all(list(each.shape) == shape for each in sent.tensor)

    @pytest.mark.parametrize(
        ("elem_type", "field", "values"),
        [
            (0, "int64_data", [-1, 2]),
            (2, "int_data", [-1, 2]),
            (3, "float64_data", [0.1, 2]),
            (9, "bool_data", [True, False]),
        ],
    )
    def test_types_by_json(self, client, elem_type, field, values):
        with Server(b"{}", "application/json") as server:
            made = client([Variable("x", "x", elem_type, (2,))])
            made.set_http_proto(False)
            made.connect(server.address)
            made.predict({"x": np.array(values), "x.lod": [0, 1, 2]})
        [sent] = json.loads(server.requests[0][2])["tensor"]
        names = {"name": "x", "alias_name": "x"}
        typed = {"elem_type": elem_type} if elem_type else {}  # 0 is the default, and left out
        assert sent == {**names, field: values, **typed, "shape": [1, 2], "lod": [0, 1, 2]}

    def test_bytes_by_json(self, client):
        """Quirk of the original: a KeyError for every type but four."""
        with Server(b"{}", "application/json") as server:
            made = client([Variable("x", "x", 7, (2,))])
            made.set_http_proto(False)
            made.connect(server.address)
            made.predict({"x": np.array([1, 255])})
        [sent] = json.loads(server.requests[0][2])["tensor"]
        assert (sent["elem_type"], sent["tensor_content"]) == (7, "Af8=")

    def test_feeds_stay_as_they_are(self, client):
        feed = {"image": IMAGE.tolist()}
        with Server(response().SerializeToString()) as server:
            made = client()
            made.connect(server.address)
            for _ in range(2):
                assert made.predict(feed) is not None
        assert feed == {"image": IMAGE.tolist()}
        assert server.requests[0][2] == server.requests[1][2]

    @pytest.mark.parametrize(
        ("feeds", "feed", "sentence"),
        [
            (IMAGES, None, "You should specify feed"),
            (IMAGES, {"nope": 1}, "Wrong feed name: nope"),
            (IMAGES, {"image": [1, 2]}, "shape of feed tensor image"),
            (IMAGES, {"image": 1}, "shape of feed tensor image"),
            (STRINGS, {"image": 1}, "feedvar is string-type"),
            ([Variable("n", "n", 2, (1,))], {"n": "7"}, "feedvar is not string-type"),
            (TWO, "text", "Feed only accepts"),
        ],
    )
    def test_wrong_feeds_are_value_errors_as_in_the_original(self, client, feeds, feed, sentence):
        with pytest.raises(ValueError, match=sentence):
            client(feeds).predict(feed)

    def test_path_and_headers_can_be_set(self, client):
        with Server(response().SerializeToString()) as server:
            made = client(port=server.address.rpartition(":")[2], service_name="/x")
            made.predict({"image": IMAGE})
            made.set_service_name("/y/z")
            made.add_http_headers({"log-id": "7"})
            made.predict({"image": IMAGE})
        assert [path for path, _, _ in server.requests] == ["/x", "/y/z"]
        assert server.requests[1][1]["log-id"] == "7"


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, BadInput),
            (404, NotFound),
            (500, EngineFailed),
            (503, Overloaded),
            (504, DeadlineExceeded),
            (501, BadUpstream),
        ],
    )
    def test_error_statuses(self, client, status, error):
        sentence = b"[127.0.0.1:1][E1003]Fail to parse http body"
        with Server(sentence, "text/plain", status, [("x-bd-error-code", 1003)]) as server:
            for raise_on_error in (False, True):
                made = client(raise_on_error=raise_on_error)
                made.connect(server.address)
                if raise_on_error:
                    with pytest.raises(error, match="Fail to parse http body"):
                        made.predict({"image": IMAGE})
                else:
                    assert made.predict({"image": IMAGE}) is None

    @pytest.mark.parametrize("use_grpc", [False, True])
    def test_nobody_there(self, client, use_grpc):
        made = client(raise_on_error=True)
        made.set_use_grpc_client(use_grpc)
        made.connect("127.0.0.1:1")
        with pytest.raises(UpstreamUnavailable):
            made.predict({"image": IMAGE})

    @pytest.mark.parametrize("use_grpc", [False, True])
    def test_a_silent_server_costs_the_timeout(self, client, use_grpc):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            made = client(raise_on_error=True)
            made.set_use_grpc_client(use_grpc)
            made.set_timeout_ms(200)
            made.connect(f"127.0.0.1:{silent.getsockname()[1]}")
            with pytest.raises((DeadlineExceeded, UpstreamUnavailable)):
                made.predict({"image": IMAGE})

    @pytest.mark.parametrize("content_type", ["application/proto", "application/json"])
    def test_damaged_answers(self, client, content_type):
        with Server(b"\x0a\xff", content_type) as server:
            made = client(raise_on_error=True)
            made.connect(server.address)
            with pytest.raises(BadUpstream, match="damaged"):
                made.predict({"image": IMAGE})

    def test_connections_that_cannot_be_made_are_tried_again(self, client):
        """Quirk of the original: set_max_retries was a NameError."""
        made = client()
        made.set_max_retries(2)
        made.connect("127.0.0.1:1")
        assert made.predict({"image": IMAGE}) is None

    def test_setting_up_wrongly_is_said_in_words(self, client):
        made = client()
        with pytest.raises(ValueError, match="only support 1 endpoint"):
            made.connect(["127.0.0.1:1", "127.0.0.1:2"])
        for url in ("127.0.0.1", "http://", "127.0.0.1:x", "ftp://127.0.0.1:21"):
            with pytest.raises(ValueError, match="url not right"):
                made.connect(url)
        with pytest.raises(ValueError, match="timeout_ms must be int"):
            made.set_timeout_ms("1")
        with pytest.raises(ValueError, match="retry_times must be int"):
            made.set_max_retries("1")
        with pytest.raises(ConfigError, match="Encrypted"):
            made.connect("127.0.0.1:1", encryption=True)
        with pytest.raises(ConfigError, match="load_client_config"):
            HttpClient().predict({"image": IMAGE})

    def test_host_names_are_addresses_too(self, client):
        """Quirk of the original: it took dotted IPv4 only."""
        with Server(response().SerializeToString()) as server:
            made = client()
            made.connect(server.address.replace("127.0.0.1", "localhost"))
            assert made.predict({"image": IMAGE}) == response()


@contextlib.contextmanager
def grpc_server(answer):
    requests = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method != METHOD:
                return None

            def respond(request, context):
                requests.append(request)
                return answer(context)

            return grpc.unary_unary_rpc_method_handler(respond)

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", requests
    finally:
        server.stop(None).wait()


class TestGrpc:
    def test_sends_and_reads_the_messages(self, client):
        with grpc_server(lambda _: response().SerializeToString()) as (address, requests):
            made = client()
            made.set_use_grpc_client(True)
            made.connect(address)
            assert made.predict({"image": IMAGE}, ["out"]) == response()
            assert made.grpc_client_predict({"image": IMAGE}, ["out"]) == response()
        assert requests == [capture(1)[2]] * 2

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, BadInput),
            (grpc.StatusCode.UNIMPLEMENTED, NotFound),
            (grpc.StatusCode.INTERNAL, EngineFailed),
            (grpc.StatusCode.DATA_LOSS, BadUpstream),
        ],
    )
    def test_error_codes(self, client, code, error):
        with grpc_server(lambda context: context.abort(code, "[E1]words")) as (address, _):
            made = client(raise_on_error=True)
            made.set_use_grpc_client(True)
            made.connect(address)
            with pytest.raises(error, match="words"):
                made.predict({"image": IMAGE})
            made = client()
            made.connect(address)
            assert made.grpc_client_predict({"image": IMAGE}) is None


class TestOurServer:
    """Each mode against a running model server of ours."""

    def modes(self, client, address, **options):
        for mode in ("proto", "json", "grpc"):
            made = client([Variable("x", "image", 1, (2,))], **options)
            made.set_http_proto(mode == "proto")
            made.set_use_grpc_client(mode == "grpc")
            made.set_request_compress(True)
            made.set_response_compress(True)
            made.connect(address)
            yield mode, made

    def test_every_mode_gets_the_same_numbers(self, client):
        values = np.arange(1000, dtype=np.float32).reshape(500, 2) / 3
        with serving(Doubler()) as server:
            for mode, made in self.modes(client, server.address, raise_on_error=True):
                answer = made.predict({"image": values}, ["out"], batch=True)
                if mode == "json":
                    [output] = answer["outputs"]
                    [found] = output["tensor"]
                    assert output["engine_name"] == "GeneralInferOp_0"
                    shape, data = found["shape"], found["float_data"]
                else:
                    [found] = answer.outputs[0].tensor
                    shape, data = list(found.shape), list(found.float_data)
                assert shape == [500, 2]
                np.testing.assert_array_equal(np.array(data, np.float32), values.ravel() * 2)

    def test_errors_of_the_server_are_told_apart(self, client):
        with serving(Doubler()) as server:
            for _, made in self.modes(client, server.address, raise_on_error=True):
                with pytest.raises(BadInput, match="exactly these inputs"):
                    made.predict({}, ["out"])
            made.set_use_grpc_client(False)
            made.set_service_name("/NoSuchService/inference")
            with pytest.raises(NotFound):
                made.predict({"image": [1, 2]})
