"""RemotePredictor against real servers: ours, and peers that answer what they are told to."""

import contextlib
import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import server_process
from rpc_peers import CAPTURES, FEEDS, FETCHES, Doubler, numbers, read_frame, remote, serving

from ocr_serving import endpoint
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
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.tensor import Tensor

IMAGE = {"image": numbers(1, 2)}
GENUINE_ANSWER = (CAPTURES / "brpc" / "ok.resp.bin").read_bytes()


class Peer:
    """A server that answers each connection's n-th request with what `answer(n, frame)` gives; None hangs up."""

    def __init__(self, answer: Callable[[int, frame.Frame], bytes | None]) -> None:
        self.requests: list[frame.Frame] = []
        self.connections = 0
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = endpoint.of_socket(self._listener)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            for n in itertools.count():
                request = read_frame(sock)
                if request is None:
                    return
                self.requests.append(request)
                answer = self._answer(n, request)
                if answer is None:
                    return
                sock.sendall(answer)

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def peer(answer: Callable[[int, frame.Frame], bytes | None]) -> Iterator[Peer]:
    server = Peer(answer)
    try:
        yield server
    finally:
        server.close()


def joined(buffers: list[Buffer]) -> bytes:
    return b"".join(buffers)


def answer_with(*tensors: Tensor) -> Callable[[int, frame.Frame], bytes]:
    payload = messages.encode_response("e", tensors, [])
    return lambda _, request: joined(frame.encode(meta.for_success(request.meta.correlation_id), payload))


def error_with(code: int, text: str) -> Callable[[int, frame.Frame], bytes]:
    def answer(_, request):
        answered = meta.for_success(request.meta.correlation_id)
        answered.response.error_code, answered.response.error_text = code, text
        return joined(frame.encode(answered))

    return answer


OUT = Tensor("graph_out", "out", numbers(2, 4))


def test_predicts_what_the_server_computes():
    with serving(Doubler()) as server, remote(server.address) as client:
        for fetch in ([], ["out"]):
            outputs = client.predict(IMAGE, fetch, Deadline.after(10))
            assert list(outputs) == ["out"]
            np.testing.assert_array_equal(outputs["out"], numbers(2, 4), strict=True)


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


def test_a_genuine_gzipped_answer_is_understood():
    with peer(lambda *_: GENUINE_ANSWER) as server, remote(server.address) as client:
        client._upstream._correlation_ids = itertools.count(7)  # the request that the capture answers
        outputs = client.predict(IMAGE, ["out"])
    np.testing.assert_array_equal(outputs["out"], np.array([[0, 1, 2], [3, 4, 5.5]], np.float32), strict=True)


def test_connections_are_kept_and_each_call_under_way_has_its_own():
    doubler = Doubler()
    with serving(doubler) as server, remote(server.address) as client:
        for _ in range(5):
            client.predict(IMAGE)
        assert len(server._open) == 1
        waiting = [threading.Thread(target=client.predict, args=({"image": numbers(-1)},)) for _ in range(3)]
        for thread in waiting:
            thread.start()
        for _ in waiting:
            assert doubler.started.acquire(timeout=10)
        assert len(server._open) == 3
        doubler.release.set()
        for thread in waiting:
            thread.join(10)


def test_nobody_there_is_said_at_once_with_the_address():
    address = f"127.0.0.1:{server_process.free_port()}"
    began = time.monotonic()
    with remote(address) as client, pytest.raises(UpstreamUnavailable, match=f"No model server answers at {address}"):
        client.predict(IMAGE, deadline=Deadline.after(30))
    assert time.monotonic() - began < 1


def test_an_unknown_host_is_unavailable():
    with remote("no-such-host.invalid:9293") as client, pytest.raises(UpstreamUnavailable):
        client.predict(IMAGE, deadline=Deadline.after(30))


def test_a_dead_address_among_others_costs_nothing():
    with serving(Doubler()) as server, remote(f"127.0.0.1:{server_process.free_port()}", server.address) as client:
        for _ in range(10):
            client.predict(IMAGE)


def test_calls_go_to_each_server_in_turn():
    first, second = Doubler(), Doubler()
    with serving(first) as one, serving(second) as other, remote(one.address, other.address) as client:
        for _ in range(10):
            client.predict(IMAGE)
    assert (first.calls, second.calls) == (5, 5)


def test_a_server_that_came_back_is_used_although_connections_were_kept():
    port = server_process.free_port()
    with remote(f"127.0.0.1:{port}") as client:
        for _ in range(3):
            with serving(Doubler(), port=port):
                client.predict(IMAGE)
            with pytest.raises(UpstreamUnavailable):
                client.predict(IMAGE)


def test_more_kept_connections_than_tries_do_not_hide_a_server_that_came_back():
    port = server_process.free_port()
    with remote(f"127.0.0.1:{port}") as client:
        with serving(doubler := Doubler(), threads=6, port=port):
            callers = [threading.Thread(target=client.predict, args=({"image": numbers(-1)},)) for _ in range(6)]
            for caller in callers:
                caller.start()
            for _ in callers:
                assert doubler.started.acquire(timeout=10)
            doubler.release.set()
            for caller in callers:
                caller.join(10)
        with serving(Doubler(), port=port):
            client.predict(IMAGE)


def test_broken_connections_are_tried_three_times_like_the_original():
    with peer(lambda *_: None) as server, remote(server.address) as client:
        with pytest.raises(UpstreamUnavailable, match=server.address):
            client.predict(IMAGE)
        assert len(server.requests) == 3


def test_a_connection_that_breaks_once_costs_nothing():
    hang_up = iter([True, False])
    with (
        peer(lambda n, request: None if next(hang_up) else answer_with(OUT)(n, request)) as server,
        remote(server.address) as client,
    ):
        assert client.predict(IMAGE)["out"].tolist() == [[2, 4]]


def test_a_server_that_stays_silent_costs_the_deadline_once():
    silent = threading.Event()
    with peer(lambda *_: silent.wait(60) and None) as server, remote(server.address) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=f"ran out while {server.address} worked on it"):
            client.predict(IMAGE, deadline=Deadline.after(0.3))
        assert time.monotonic() - began < 5
        assert len(server.requests) == 1
        silent.set()


def test_a_peer_that_does_not_read_costs_the_deadline():
    large = {"image": np.zeros((1, 10_000_000), np.float32)}
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        remote(endpoint.of_socket(listener)) as client,
        pytest.raises(DeadlineExceeded),
    ):
        client.predict(large, deadline=Deadline.after(0.3))


def test_a_late_answer_is_not_taken_for_the_next_one():
    doubler = Doubler()
    with serving(doubler) as server, remote(server.address) as client:
        with pytest.raises(DeadlineExceeded):
            client.predict({"image": numbers(-1)}, deadline=Deadline.after(0.2))
        doubler.release.set()
        assert client.predict(IMAGE)["out"].tolist() == [[2, 4]]


def test_a_spent_deadline_sends_nothing():
    with peer(answer_with(OUT)) as server, remote(server.address) as client:
        with pytest.raises(DeadlineExceeded):
            client.predict(IMAGE, deadline=Deadline.after(0))
        assert not server.requests


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


def test_a_server_killed_in_mid_request_is_unavailable(models: Path):
    """A real process, killed with SIGKILL while the request is in it."""
    command = ["-m", "paddle_serving_server.serve", "--model", "ocr_det_model", "--port"]
    port = server_process.free_port()
    with server_process.running([*command, str(port)], port, models) as server:
        client = RemotePredictor(f"127.0.0.1:{port}", [Variable("x", "x", 1, ())], [Variable("o", "o", 1, ())])
        errors = []

        def call():
            try:
                client.predict({"x": np.zeros((1, 3, 960, 960), np.float32)}, deadline=Deadline.after(60))
            except Exception as error:
                errors.append(error)

        caller = threading.Thread(target=call)
        with contextlib.closing(client):
            server.process.send_signal(signal.SIGSTOP)  # so that it cannot be faster than its end
            caller.start()
            caller.join(0.3)
            assert caller.is_alive()
            server.process.kill()
            caller.join(30)
        assert not caller.is_alive()
        assert [type(error) for error in errors] == [UpstreamUnavailable]
