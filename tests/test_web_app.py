"""The HTTP side of the web services: request forms, answers and errors, on a service that needs no model."""

import base64
import contextlib
import http.client
import json
import re
import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_stub import png

from ocr_serving import endpoint
from ocr_serving.errors import UpstreamUnavailable
from ocr_serving.settings import Settings
from ocr_serving.web import serving
from ocr_serving.web.app import create_app

ROUTE = "/ocr/prediction"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


IMAGE = b64(png(30, 20))


class SizeService:
    """Answers the size of each image; an image 13 pixels wide brings it down, as does one 14 wide its upstream."""

    defaults = ("res",)
    extras = ("scores",)
    merges = True

    def answer(self, sources, outputs, deadline, timings):
        assert deadline.remaining() > 0
        images = [source() for source in sources]
        if any(image.shape[1] == 13 for image in images):
            raise ZeroDivisionError("secret /etc/path")
        if any(image.shape[1] == 14 for image in images):
            raise UpstreamUnavailable("The det model server at 127.0.0.1:9293 does not answer.")
        found = {"res": [f"{i.shape[1]}x{i.shape[0]} 宽" for i in images], "scores": [1.0 for _ in images]}
        return {name: found[name] for name in outputs}


SETTINGS = Settings(max_body_bytes=100_000, max_pixels=10_000, max_images=3)


@pytest.fixture(scope="module")
def app():
    return create_app(SizeService(), SETTINGS)


@pytest.fixture(scope="module")
def client(app):
    return app.test_client()


def post(client, body, content_type="application/json"):
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.post(ROUTE, data=data, content_type=content_type)


def test_a_success_has_the_originals_bytes(client):
    answer = post(client, {"feed": [{"x": IMAGE}], "fetch": ["res"]})
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.data == b'{"result":{"res":["30x20 \\u5bbd"]}}\n'


@pytest.mark.parametrize(
    ("fetch", "outputs"),
    [
        (["res"], {"res"}),
        ([], {"res"}),
        (["save_infer_model/scale_0.tmp_1"], {"res"}),
        (["scores"], {"res", "scores"}),
        (["res", "scores", "scores"], {"res", "scores"}),
    ],
)
def test_fetch_names_what_comes_back(client, fetch, outputs):
    answer = post(client, {"feed": [{"x": IMAGE}], "fetch": fetch})
    assert set(answer.json["result"]) == outputs


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.ocr+json"],
)
def test_content_types_of_json(client, content_type):
    assert post(client, {"feed": [{"x": IMAGE}], "fetch": []}, content_type).status_code == 200


WRAPPED = "\n".join(IMAGE[i : i + 20] for i in range(0, len(IMAGE), 20))


@pytest.mark.parametrize("text", [IMAGE, WRAPPED, WRAPPED.replace("\n", "\r\n") + "\r\n", f" {IMAGE}\t"])
def test_base64_with_white_space_is_read(client, text):
    answer = post(client, {"feed": [{"x": text}], "fetch": []})
    assert answer.json == {"result": {"res": ["30x20 宽"]}}


def test_other_keys_are_passed_over_and_items_keep_their_order(client):
    feed = [{"x": b64(png(w, 5)), "name": [w]} for w in (3, 1, 2)]
    answer = post(client, {"feed": feed, "fetch": [], "log_id": 7, "extra": {"a": None}})
    assert answer.json == {"result": {"res": ["3x5 宽", "1x5 宽", "2x5 宽"]}}


GOOD = {"x": IMAGE}
REFUSED = {
    "not JSON": (b"{", "not valid JSON"),
    "no body": (b"", "not valid JSON"),
    "UTF-16": ('{"feed":[]}'.encode("utf-16"), "not valid JSON"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not valid JSON"),
    "NaN": (b'{"feed":[{"x":NaN}],"fetch":[]}', "not valid JSON"),
    "invalid UTF-8": (b'{"feed":[{"x":"\xff"}],"fetch":[]}', "not valid JSON"),
    "deep nesting": (b'{"feed":' + b"[" * 10_000, "not valid JSON"),
    "deep nesting in a key that is passed over": (b'{"a":' * 10_000, "not valid JSON"),
    "a list": ([], "must be a JSON object"),
    "null": (None, "must be a JSON object"),
    "an empty object": ({}, 'has no "feed"'),
    "no feed": ({"fetch": ["res"]}, 'has no "feed"'),
    "no fetch": ({"feed": [GOOD]}, 'has no "fetch"'),
    "feed an object": ({"feed": GOOD, "fetch": []}, '"feed" must be a list'),
    "feed empty": ({"feed": [], "fetch": []}, '"feed" is empty'),
    "fetch a string": ({"feed": [GOOD], "fetch": "res"}, '"fetch" must be a list'),
    "fetch of numbers": ({"feed": [GOOD], "fetch": [1]}, '"fetch" must hold names'),
    "unknown fetch": ({"feed": [GOOD], "fetch": ["res", "boxes"]}, "this service knows: res, .*scores"),
    "an item that is no object": ({"feed": [GOOD, IMAGE], "fetch": []}, r"feed\[1\] must be an object"),
    "no x": ({"feed": [GOOD, {"y": IMAGE}], "fetch": []}, r'feed\[1\] has no "x"'),
    "x a number": ({"feed": [{"x": 1}], "fetch": []}, r"feed\[0\].x must be a string"),
    "x null": ({"feed": [{"x": None}], "fetch": []}, r"feed\[0\].x must be a string"),
    "x empty": ({"feed": [GOOD, {"x": ""}], "fetch": []}, r"feed\[1\].x is an empty string"),
    "x white space": ({"feed": [{"x": " \n"}], "fetch": []}, r"feed\[0\].x is an empty string"),
    "not base64": ({"feed": [GOOD, {"x": "%%%%"}], "fetch": []}, r"feed\[1\].x is not base64: only A-Z"),
    "not ASCII": ({"feed": [{"x": "图" * 4}], "fetch": []}, r"feed\[0\].x is not base64: only A-Z"),
    "Python's repr of bytes": ({"feed": [{"x": f"b'{IMAGE}'"}], "fetch": []}, r"not base64: only A-Z, a-z, 0-9"),
    "a path": ({"feed": [{"x": "imgs/my-sign.jpg"}], "fetch": []}, r"not base64: only A-Z, a-z, 0-9"),
    "no padding": ({"feed": [{"x": "QUI"}], "fetch": []}, r"not base64: its length"),
    "one character": ({"feed": [{"x": "Q"}], "fetch": []}, r"not base64: its length"),
    "URL-safe base64": ({"feed": [{"x": "-_-_"}], "fetch": []}, r"not base64: it uses the URL-safe alphabet"),
    "a data URI": ({"feed": [{"x": f"data:image/png;base64,{IMAGE}"}], "fetch": []}, r"not base64: it is a data: URI"),
    "not an image": ({"feed": [GOOD, {"x": b64(b"hello")}], "fetch": []}, r"feed\[1\].x: This is not an image"),
    "half an image": (
        {"feed": [{"x": b64(png(30, 20)[:40])}], "fetch": []},
        r"feed\[0\].x: The .* (damaged|cut short)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_with_400(client, case):
    body, sentence = REFUSED[case]
    answer = post(client, body if body is not None else b"null")
    assert_error(answer, 400, "INVALID_ARGUMENT", sentence)


def assert_error(answer, status, code, sentence):
    assert answer.status_code == status
    assert answer.content_type == "application/json"
    assert set(answer.json) == {"error"}
    assert answer.json["error"]["code"] == code
    assert re.search(sentence, answer.json["error"]["message"])
    assert "Traceback" not in answer.text
    assert IMAGE not in answer.text


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", None, "multipart/form-data"]
)
def test_another_content_type_is_400_with_an_example(client, content_type):
    answer = post(client, {"feed": [GOOD], "fetch": ["res"]}, content_type)
    assert_error(answer, 400, "INVALID_ARGUMENT", r'Content-Type must be application/json.*"feed"')


def test_limits_are_named_with_422_and_413(client):
    feed = [GOOD, {"x": b64(png(101, 100))}]
    answer = post(client, {"feed": feed, "fetch": []})
    assert_error(
        answer, 422, "LIMIT_EXCEEDED", r"feed\[1\].x: The image is 101 x 100 pixels; at most 10000 .*max_pixels"
    )
    answer = post(client, {"feed": [GOOD] * 4, "fetch": []})
    assert_error(answer, 422, "LIMIT_EXCEEDED", r"feed holds 4 images; at most 3 are accepted \(max_images\)")
    answer = post(client, b" " * (SETTINGS.max_body_bytes + 1))
    assert_error(answer, 413, "PAYLOAD_TOO_LARGE", r"at most 100000 bytes are accepted \(max_body_bytes\)")


def test_other_methods_and_paths(client):
    answer = client.get(ROUTE)
    assert_error(answer, 405, "METHOD_NOT_ALLOWED", "takes POST")
    assert "POST" in answer.headers["Allow"]
    for path in ("/", "/ocr/prediction/", "/ocr//prediction", "/rec/prediction", "/static/x"):
        assert_error(client.post(path), 404, "NOT_FOUND", "POST /ocr/prediction")
    answer = client.options(ROUTE)
    assert (answer.status_code, answer.data) == (200, b"")


def test_our_own_faults_say_nothing_of_the_inside(client, caplog):
    answer = post(client, {"feed": [{"x": b64(png(13, 5))}], "fetch": []})
    assert_error(answer, 500, "INTERNAL", "The service failed on this request; the server's log says why")
    assert "ZeroDivisionError" in caplog.text
    answer = post(client, {"feed": [{"x": b64(png(14, 5))}], "fetch": []})
    assert_error(answer, 503, "UPSTREAM_UNAVAILABLE", "127.0.0.1:9293 does not answer")


@pytest.fixture(scope="module")
def port(app):
    bound = endpoint.bind("127.0.0.1", 0)
    server = serving.Server(app, bound, SETTINGS)
    threading.Thread(target=server.run, daemon=True).start()
    return bound.getsockname()[1]


def send(port, body, headers=None, chunked=False):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Content-Type": "application/json", **(headers or {})}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a refused body is not read to its end
        connection.request("POST", ROUTE, body, headers, encode_chunked=chunked)
    return connection.getresponse()


def padded(size: int) -> bytes:
    body = json.dumps({"feed": [{"x": IMAGE}], "fetch": []}).encode()
    return body + b" " * (size - len(body))


@pytest.mark.parametrize(("excess", "status"), [(-1, 200), (0, 200), (1, 413), (1_000_000, 413)])
def test_the_body_limit_is_exact_over_http(port, excess, status):
    answer = send(port, padded(SETTINGS.max_body_bytes + excess))
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Server"] is None
    assert set(json.load(answer)) == {"result" if status == 200 else "error"}


def test_a_body_announced_too_large_is_refused_before_it_is_sent(port):
    answer = send(port, None, {"Content-Length": "10000000000"})
    assert answer.status == 413
    assert json.load(answer)["error"]["code"] == "PAYLOAD_TOO_LARGE"


def test_chunked_bodies_are_read_and_limited(port):
    chunks = [padded(5000)[i : i + 1000] for i in range(0, 5000, 1000)]
    answer = send(port, iter(chunks), {"Transfer-Encoding": "chunked"}, chunked=True)
    assert json.load(answer) == {"result": {"res": ["30x20 宽"]}}
    answer = send(port, iter([b" " * 50_000] * 3), {"Transfer-Encoding": "chunked"}, chunked=True)
    assert answer.status == 413


def test_what_is_no_http_gets_an_error_of_our_form(port):
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nbad header\r\n\r\n")
        reply = connection.makefile("rb").read()
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400") or head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == "INVALID_ARGUMENT"


def test_a_hundred_idle_connections_block_nobody(port):
    idle = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(150)]
    for connection in idle[:50]:
        connection.sendall(b"POST /ocr/prediction HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n{")
    try:
        assert send(port, padded(1000)).status == 200
    finally:
        for connection in idle:
            connection.close()


LEAK = re.compile(r"Traceback|File \"|\.py\b|/(home|root|work|tmp|usr|etc|var)/|site-packages|0x[0-9a-f]{6,}")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just(IMAGE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "feed", "fetch", "a"]), inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_no_body_brings_it_down_or_makes_it_talk(client, body):
    answer = post(client, body)
    assert answer.status_code in (200, 400, 413, 422)
    if answer.status_code != 200:
        assert not LEAK.search(answer.text)


def test_a_body_of_a_million_keys_or_of_a_key_twice_is_refused(client):
    many = json.dumps({f"k{i}": 0 for i in range(100_001)}).encode()
    large = create_app(SizeService(), Settings()).test_client()
    assert_error(post(large, many), 400, "INVALID_ARGUMENT", "more than 100000 quotation marks and commas")
    item = b'{"x":"' + IMAGE.encode() + b'"}'
    for twice in (
        b'{"feed":[' + item + b'],"fetch":[],"feed":[' + item + b"]}",
        b'{"feed":[{"x":"' + IMAGE.encode() + b'","x":"AAAA"}],"fetch":[]}',
        b'{"feed":[{"\\u0078":"AAAA","x":"' + IMAGE.encode() + b'"}],"fetch":[]}',
        b'{"feed":[' + item + b'],"fetch":[],"a":{"b":1,"b":2}}',
    ):
        assert_error(post(client, twice), 400, "INVALID_ARGUMENT", "has a key twice")


def test_a_compressed_body_is_refused(client):
    answer = client.post(ROUTE, data=b"x", content_type="application/json", headers={"Content-Encoding": "gzip"})
    assert_error(answer, 400, "INVALID_ARGUMENT", "Content-Encoding is not supported")
