"""RemotePredictor against real servers: ours, and peers that answer what they are told to."""

import contextlib
import itertools

import numpy as np
import pytest
from rpc_peers import CAPTURES, FEEDS, FETCHES, Doubler, numbers, remote, serving, wait_until
from scripted_peer import answer_with, error_with, joined, peer

from ocr_serving.deadline import Deadline
from ocr_serving.errors import (
    BadInput,
    BadUpstream,
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    Overloaded,
    UpstreamUnavailable,
)
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.wire import frame, messages, meta
from ocr_serving.wire.tensor import Tensor

IMAGE = {"image": numbers(1, 2)}
GENUINE_ANSWER = (CAPTURES / "brpc" / "ok.resp.bin").read_bytes()
OUT = Tensor("graph_out", "out", numbers(2, 4))


def test_predicts_what_the_server_computes():
    with serving(Doubler()) as server, remote(server.address) as client:
        for fetch in ([], ["out"]):
            outputs = client.predict(IMAGE, fetch, Deadline.after(10))
            assert list(outputs) == ["out"]
            np.testing.assert_array_equal(outputs["out"], numbers(2, 4), strict=True)


def test_several_feeds_are_one_request():
    requests = []

    def answer(_, request):
        requests.append(request)
        runs = [
            [Tensor("out", "out", tensor.unpack() * 2)] for tensor in messages.decode_request(request.message()).tensors
        ]
        payload = messages.encode_response("e", runs, [])
        return joined(frame.encode(meta.for_success(request.meta.correlation_id), payload))

    with peer(answer) as server, remote(server.address) as client:
        answers = client.predict_each([{"image": numbers(*row)} for row in ((1, 2), (3, 4, 5))], ["out"])
    assert [answer["out"].tolist() for answer in answers] == [[[2, 4]], [[6, 8, 10]]]
    assert len(requests) == 1


def test_more_feeds_than_a_request_may_bring_are_several_requests():
    with serving(Doubler()) as server, remote(server.address) as client:
        answers = client.predict_each([{"image": numbers(n)} for n in range(600)], ["out"])
    assert [answer["out"].item() for answer in answers] == [2 * n for n in range(600)]


def test_feeds_of_several_inputs_stay_together():
    class Adder(Doubler):
        def predict(self, feed, fetch=(), deadline=None):
            return {"out": feed["image"] + feed["more"]}

    feeds = (*FEEDS, Variable("y", "more", 1, (2,)))
    with serving(Adder(), feeds=feeds) as server:
        client = RemotePredictor(server.address, feeds, FETCHES[:1])
        with contextlib.closing(client):
            answers = client.predict_each([{"image": numbers(n), "more": numbers(10 * n)} for n in (1, 2, 3)], ["out"])
    assert [answer["out"].item() for answer in answers] == [11, 22, 33]


def test_an_answer_to_fewer_runs_than_were_asked_for_is_damaged():
    with peer(answer_with(OUT)) as server, remote(server.address) as client, pytest.raises(BadUpstream, match="1 of 2"):
        client.predict_each([IMAGE, IMAGE], ["out"])


@pytest.mark.parametrize(
    ("capture", "feeds", "feed", "fetch"),
    [
        ("u8_batchTrue", [("u", "img8", 7)], {"img8": np.arange(6, dtype=np.uint8).reshape(2, 3)}, ["out"]),
        ("i64_batchTrue", [("ids", "words", 0)], {"words": np.array([[1, -2, 3, 1 << 40]])}, ["out"]),
        ("str_nofetch", [("x", "image", 20)], {"image": np.array(["aGVsbG8="])}, []),
        (
            "multi_batchTrue",
            [("x", "image", 1), ("im_shape", "im_shape", 1), ("n", "num", 2), ("ids", "words", 0)],
            {
                "words": np.array([[1, 2, 3]]),
                "num": np.array([[7]], np.int32),
                "im_shape": np.zeros((1, 2), np.float32),
                "image": np.ones((1, 2), np.float32),
            },
            ["o1", "o2"],
        ),
    ],
)
def test_sends_byte_for_byte_what_the_genuine_client_sends(capture, feeds, feed, fetch):
    """And feeds go in the order of the model's variables, not the caller's."""
    fetches = [Variable(name, name, 1, ()) for name in (fetch or ["out"])]
    with peer(error_with(2001, "enough")) as server:
        client = RemotePredictor(server.address, [Variable(*feed, ()) for feed in feeds], fetches)
        with contextlib.closing(client), pytest.raises(BadUpstream):
            client.predict(feed, fetch)
    [request] = server.requests
    expected = (CAPTURES / "requests" / f"{capture}.bin").read_bytes()
    assert joined(frame.encode(request.meta, [request.payload])) == expected


def test_a_deadline_travels_with_the_request():
    with peer(answer_with(OUT)) as server, remote(server.address) as client:
        client.predict(IMAGE, deadline=Deadline.after(5))
        client.predict(IMAGE)
    first, second = (request.meta.request for request in server.requests)
    assert 4000 < first.timeout_ms <= 5000
    assert not second.HasField("timeout_ms")


def test_a_deadline_beyond_all_numbers_of_the_wire_travels_as_the_largest():
    with peer(answer_with(OUT)) as server, remote(server.address) as client:
        client.predict(IMAGE, deadline=Deadline.after(1e9))
    assert server.requests[0].meta.request.timeout_ms == 2**31 - 1


def test_less_than_a_millisecond_does_not_travel_as_0_which_means_no_end():
    with peer(answer_with(OUT)) as server, remote(server.address) as client:

        def sent_in_time():
            with contextlib.suppress(DeadlineExceeded):
                client.predict(IMAGE, deadline=Deadline.after(0.0009))
            return server.requests

        wait_until(sent_in_time)
    assert {request.meta.request.timeout_ms for request in server.requests} == {1}


def test_a_genuine_gzipped_answer_is_understood():
    with peer(lambda *_: GENUINE_ANSWER) as server, remote(server.address) as client:
        client._upstream._correlation_ids = itertools.count(7)  # the request that the capture answers
        outputs = client.predict(IMAGE, ["out"])
    np.testing.assert_array_equal(outputs["out"], np.array([[0, 1, 2], [3, 4, 5.5]], np.float32), strict=True)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1003, BadInput),
        (2004, Overloaded),
        (2003, UpstreamUnavailable),
        (1008, DeadlineExceeded),
        (-5100, EngineFailed),
        (1002, BadUpstream),
        (2001, BadUpstream),
        (-5000, BadUpstream),
    ],
)
def test_error_codes_become_our_errors(code, error):
    with peer(error_with(code, f"[10.0.0.1:9293][E{code}]A sentence.")) as server, remote(server.address) as client:
        with pytest.raises(error, match=r"A sentence\.$") as raised:
            client.predict(IMAGE)
        assert "10.0.0.1" not in str(raised.value)
        assert type(raised.value) is error
        assert len(server.requests) == 1


def test_of_a_very_long_error_text_the_beginning_is_passed_on():
    with (
        peer(error_with(1003, "Wrong. " + 10**6 * "x")) as server,
        remote(server.address) as client,
        pytest.raises(BadInput, match=r"^Wrong\. x{400,500}$"),
    ):
        client.predict(IMAGE)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (answer_with(), "did not return out"),
        (answer_with(Tensor("o", "other", numbers(1))), "did not return out"),
        (answer_with(Tensor("o", "out", np.array([1]))), "returned out as int64, not as float32"),
        (lambda _, request: joined(frame.encode(meta.for_success(request.meta.correlation_id + 1))), "another request"),
        (lambda _, request: joined(frame.encode(meta.for_success(request.meta.correlation_id), [b"\xff"])), "damaged"),
        (lambda *_: b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no model server"),
    ],
)
def test_answers_that_break_the_promise_are_said_so(answer, sentence):
    with peer(answer) as server, remote(server.address) as client, pytest.raises(BadUpstream, match=sentence):
        client.predict(IMAGE)


@pytest.mark.parametrize(
    ("feed", "fetch", "sentence"),
    [
        (IMAGE, ["nope"], "Unknown fetch; the model has: out."),
        ({}, [], "takes exactly these inputs: image."),
        ({**IMAGE, "more": numbers(1)}, [], "takes exactly these inputs: image."),
        ({"image": np.array([None])}, [], "type object cannot be sent"),
    ],
)
def test_bad_calls_send_nothing(feed, fetch, sentence):
    with peer(answer_with(OUT)) as server, remote(server.address) as client:
        with pytest.raises(BadInput, match=sentence):
            client.predict(feed, fetch)
        assert not server.connections


@pytest.mark.parametrize("address", ["", "localhost", "host:", ":9293", "host:0", "host:70000", "host:1x"])
def test_what_is_no_address_is_said_so(address):
    with pytest.raises(ConfigError, match="write host:port"):
        RemotePredictor(address, FEEDS, FETCHES)
