"""The model server's gRPC side over real sockets: every type, statuses, limits, clients that leave or stall."""

import contextlib
import socket
import struct
import threading
import time
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from rpc_peers import assert_every_client_gets_its_own, connect, numbers, remote, serving, wait_until

from ocr_serving import endpoint
from ocr_serving.server import grpc_server
from ocr_serving.server.limits import Limits
from ocr_serving.wire import messages
from ocr_serving.wire.tensor import Tensor

SERVICE = "/baidu.paddle_serving.predictor.general_model.GeneralModelService"
OIP = "/inference.GRPCInferenceService"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
TYPES = ["int64", "float32", "int32", "float64", "int16", "float16", "uint8", "int8", "bool"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@contextlib.contextmanager
def calling(server, path=f"{SERVICE}/inference"):
    with grpc.insecure_channel(server.address, UNLIMITED) as channel:
        yield channel.unary_unary(path)


def request(array, fetch=("out",)):
    return b"".join(messages.encode_request([Tensor("x", "image", array)], fetch))


def output(response):
    [found] = messages.decode_response(memoryview(response)).outputs
    return found.tensors[0].unpack()


def assert_alive(server):
    with remote(server.address) as client:
        assert client.predict({"image": numbers(1, 2)})["out"].tolist() == [[2, 4]]
    with calling(server) as call:
        assert output(call(request(numbers(3)), timeout=30)).tolist() == [[6]]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_element_type(server, dtype):
    array = np.array([[0, 1, 1]], dtype)
    with calling(server) as call:
        np.testing.assert_array_equal(output(call(request(array))), array * array.dtype.type(2), strict=True)


def test_debug_is_inference(server):
    with calling(server, f"{SERVICE}/debug") as call:
        assert output(call(request(numbers(3)))).tolist() == [[6]]


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_large_requests_packed_or_not(server, compression):
    array = np.arange(1_500_000, dtype=np.float32)[None]
    with calling(server) as call:
        np.testing.assert_array_equal(output(call(request(array), compression=compression)), array * 2, strict=True)


class TestErrors:
    def check(self, server, call, status, code, sentence):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() == status
        assert refused.value.details().startswith(f"[{server.address}][E{code}]")
        assert sentence in refused.value.details()

    @pytest.mark.parametrize("path", [f"{SERVICE}/nope", "/GeneralModelService/inference", f"{OIP}/ModelStreamInfer"])
    def test_unknown_methods(self, server, path):
        with calling(server, path) as call:
            self.check(server, lambda: call(b""), grpc.StatusCode.UNIMPLEMENTED, 1002, "Fail to find method")

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (b"\x0a\xff", "The message holds a number that does not end"),
            (b"", "takes exactly these inputs: image"),
            (request(numbers(1), ["nope"]), "Unknown fetch; the model has: out."),
        ],
    )
    def test_the_callers_faults(self, server, body, sentence):
        with calling(server) as call:
            self.check(server, lambda: call(body), grpc.StatusCode.INVALID_ARGUMENT, 1003, sentence)

    def test_a_failing_engine(self, server):
        with calling(server) as call:
            body = request(numbers(1), ["FAIL"])
            self.check(server, lambda: call(body), grpc.StatusCode.INTERNAL, -5100, "InferService inference failed!")

    def test_a_bug_is_an_answer_without_its_details(self, server, doubler):
        doubler.predict = lambda *_: 1 / 0
        with calling(server) as call:
            self.check(
                server, lambda: call(request(numbers(1))), grpc.StatusCode.INTERNAL, -5000, "]The server failed;"
            )

    def test_a_full_line(self, doubler):
        with serving(doubler, threads=1, limits=Limits(waiting=0)) as server, calling(server) as call:
            waiting = call.future(request(numbers(-1)))
            assert doubler.started.acquire(timeout=10)
            self.check(server, lambda: call(request(numbers(1))), grpc.StatusCode.UNAVAILABLE, 2004, "1 unanswered")
            with calling(server, f"{OIP}/ServerLive") as live:
                assert live(b"", timeout=10)
            doubler.release.set()
            assert output(waiting.result(10)).tolist() == [[-2]]

    def test_a_request_over_the_limit(self, doubler):
        with serving(doubler, limits=Limits(body_bytes=100_000)) as server, calling(server) as call:
            call(request(np.zeros((1, 20_000), np.float32)))
            with pytest.raises(grpc.RpcError) as refused:
                call(request(np.zeros((1, 30_000), np.float32)))
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_a_limit_that_grpcio_does_not_know(self, doubler):
        with serving(doubler, limits=Limits(body_bytes=2**40)) as server:
            assert_alive(server)


class TestTime:
    def test_a_deadline_spent_in_the_line_costs_no_inference(self, doubler):
        with serving(doubler, threads=1) as server, calling(server) as call:
            busy = call.future(request(numbers(-1)))
            assert doubler.started.acquire(timeout=10)
            with pytest.raises(grpc.RpcError) as late:
                call(request(numbers(1)), timeout=0.1)
            assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            time.sleep(0.2)  # lets the server's clock come there, too; more changes nothing
            doubler.release.set()
            busy.result(10)
            wait_until(lambda: server._workers._accepted == 0)
            assert doubler.calls == 1

    def test_a_cancelled_request_costs_no_inference(self, doubler):
        with serving(doubler, threads=1) as server, calling(server) as call:
            busy = call.future(request(numbers(-1)))
            assert doubler.started.acquire(timeout=10)
            gone = call.future(request(numbers(1)))
            wait_until(lambda: server._workers._accepted == 2)
            gone.cancel()
            time.sleep(0.2)  # lets the server hear of it; more changes nothing
            doubler.release.set()
            busy.result(10)
            wait_until(lambda: server._workers._accepted == 0)
            assert doubler.calls == 1

    def test_stopping_answers_what_was_accepted_and_refuses_the_rest(self, doubler):
        with serving(doubler) as server, calling(server) as call, calling(server, f"{OIP}/ServerReady") as ready:
            waiting = call.future(request(numbers(-1)))
            assert doubler.started.acquire(timeout=10)
            drained = []
            stopper = threading.Thread(target=lambda: drained.append(server.stop(30)))
            stopper.start()
            wait_until(lambda: server._workers.draining)
            with pytest.raises(grpc.RpcError) as refused:
                call(request(numbers(1)))
            assert "[E2003]" in refused.value.details()
            assert ready(b"") == b""  # false
            doubler.release.set()
            assert output(waiting.result(10)).tolist() == [[-2]]
            stopper.join(20)
            assert drained == [True]

    def test_stopping_does_not_wait_longer_than_its_grace(self, doubler):
        with serving(doubler) as server, calling(server) as call:
            waiting = call.future(request(numbers(-1)))
            assert doubler.started.acquire(timeout=10)
            assert server.stop(0.1) is False
            with pytest.raises(grpc.RpcError):
                waiting.result(10)


class TestConnections:
    def test_every_client_gets_its_own_answers(self, server):
        def ask(asked):
            with calling(server) as call:
                answers = [output(call(request(numbers(i)), timeout=60)) for i in asked]
            return [row for answer in answers for [row] in [answer.tolist()]]

        assert_every_client_gets_its_own(ask)

    @pytest.mark.parametrize("data", [PREFACE + b"garbage" * 20, b"PRI * nonsense\r\n\r\n" * 10])
    def test_what_is_no_http2_is_hung_up_on(self, server, data):
        with connect(server.address) as client, contextlib.suppress(ConnectionResetError):
            client.sendall(data)
            while client.recv(1000):
                pass
        assert_alive(server)

    def test_vanished_clients_leave_nothing_behind(self, server):
        for _ in range(20):
            for end in (4, 10, len(PREFACE)):
                with connect(server.address) as client:
                    client.sendall(PREFACE[:end])
        wait_until(lambda: not server._open)
        wait_until(lambda: not [t for t in threading.enumerate() if t.name in ("connection", "splice")])
        assert_alive(server)

    def test_an_idle_connection_is_closed_and_the_client_comes_back(self, doubler):
        with serving(doubler, limits=Limits(idle_seconds=0.5)) as server, calling(server) as call:
            assert output(call(request(numbers(3)))).tolist() == [[6]]
            wait_until(lambda: not server._open)
            assert output(call(request(numbers(4)))).tolist() == [[8]]

    def test_a_silent_connection_is_not_closed_while_an_answer_is_due(self, doubler):
        with serving(doubler, limits=Limits(idle_seconds=0.3)) as server, calling(server) as call:
            waiting = call.future(request(numbers(-1)))
            assert doubler.started.acquire(timeout=10)
            time.sleep(0.8)  # lets the idle time pass; more changes nothing
            doubler.release.set()
            assert output(waiting.result(10)).tolist() == [[-2]]

    def test_a_client_that_reads_no_more_holds_up_nobody_and_is_cut_off(self, doubler):
        limits = Limits(idle_seconds=1, send_seconds=0.5)
        with (
            serving(doubler, limits=limits) as server,
            relay(server.address) as (address, deafen),
            grpc.insecure_channel(address, UNLIMITED) as channel,
        ):
            waiting = channel.unary_unary(f"{SERVICE}/inference").future(request(np.full((1, 300_000), -1.0, "f4")))
            assert doubler.started.acquire(timeout=20)
            deafen()
            doubler.release.set()
            assert_alive(server)
            wait_until(lambda: not server._open)
            waiting.cancel()


@contextlib.contextmanager
def relay(server_address):
    """An address that leads one client to the server, and a function after which the client hears nothing more."""
    deaf = threading.Event()

    def pass_on(source, sink, until):
        with contextlib.suppress(OSError):
            while not until() and (data := source.recv(1000)):
                sink.sendall(data)
            until() or sink.shutdown(socket.SHUT_WR)

    def join():
        client, _ = listener.accept()
        with client, connect(server_address) as server:
            down = threading.Thread(target=pass_on, args=(server, client, deaf.is_set))
            down.start()
            pass_on(client, server, lambda: False)
            down.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        joined = threading.Thread(target=join)
        joined.start()
        yield endpoint.of_socket(listener), deaf.set
    joined.join(30)


def http2_frame(kind, flags, stream, payload):
    return struct.pack("!IBBI", len(payload), 0, 0, 0)[1:4] + struct.pack("!BBI", kind, flags, stream) + payload


def call_without_window(stream, body):
    """The frames of a call whose answer may not be sent."""
    fields = {":method": "POST", ":scheme": "http", ":path": f"{SERVICE}/inference", ":authority": "x"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    head = b"".join(b"\0" + b"".join(bytes([len(t)]) + t.encode() for t in field) for field in fields.items())
    data = struct.pack("!BI", 0, len(body)) + body
    return http2_frame(1, 4, stream, head) + http2_frame(0, 1, stream, data)


def test_answers_that_a_client_does_not_take_are_bounded_and_given_up(doubler, monkeypatch):
    monkeypatch.setattr(grpc_server, "_MOST_UNTAKEN", 30_000)
    body = request(np.zeros((1, 3_000), np.float32))
    with serving(doubler, limits=Limits(send_seconds=1)) as server, connect(server.address) as client:
        client.sendall(PREFACE + http2_frame(4, 0, 0, struct.pack("!HI", 4, 0)))  # SETTINGS_INITIAL_WINDOW_SIZE
        for i in range(3):
            client.sendall(call_without_window(2 * i + 1, body))
            wait_until(lambda answers=i + 1: doubler.calls == answers)
        with calling(server) as call:
            with pytest.raises(grpc.RpcError, match="Clients have not taken 36") as refused:
                wait_until(lambda: not call(request(numbers(3)), timeout=30))
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            with calling(server, f"{OIP}/ServerLive") as ask:
                assert ask(b"", timeout=30) == b"\x08\x01", "probes cost no memory"
            refusals = 'pd_query_request_failure_total{code="OVERLOADED",protocol="grpc"} 1.0'
            assert refusals in urlopen(f"http://{server.address}/brpc_metrics").read().decode()
            time.sleep(1.1)
            begin = time.monotonic()
            wait_until(lambda: answered(call))
            assert time.monotonic() - begin < 30, "grpcio gives up whoever acknowledges no settings after a minute"


def answered(call):
    try:
        return output(call(request(numbers(3)), timeout=30)).tolist() == [[6]]
    except grpc.RpcError:
        return False


def test_calls_are_answered_though_no_thread_can_be_started_for_them(server, monkeypatch):
    with calling(server) as call:
        assert answered(call)

        def start(thread, start=threading.Thread.start):
            if thread.name.startswith("grpc"):
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            calls = [call.future(request(numbers(i)), timeout=30) for i in range(20)]
            assert [output(each.result()).tolist() for each in calls] == [[[2 * i]] for i in range(20)]
        assert answered(call)
