"""The model server's bRPC side over real sockets: genuine requests, several at once, and clients that misbehave."""

import contextlib
import gzip
import socket
import struct
import threading
import time
import tracemalloc

import numpy as np
import pytest
from http_peers import assert_alive, get
from rpc_peers import CAPTURES, connect, frame_of, numbers, read_frame, remote, request, serving, values, wait_until

from ocr_serving.server import service
from ocr_serving.server.limits import Limits
from ocr_serving.wire import compression, frame, messages, meta
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire.tensor import Tensor


def genuine(name):
    return (CAPTURES / "brpc" / f"{name}.bin").read_bytes()


@pytest.mark.parametrize(
    "name",
    ["ok", "ok_logid_cid64", "attach", "gzip_req", "zlib_req", "snappy_req", "no_compress_field", "short_service_name",
     "debug_method"],
)  # fmt: skip
def test_genuine_requests_are_answered(server, name):
    with connect(server.address) as client:
        client.sendall(genuine(f"{name}.req"))
        answer = read_frame(client)
    sent = frame_of(genuine(f"{name}.req"))
    assert answer.meta.SerializeToString() == meta.for_success(sent.meta.correlation_id).SerializeToString()
    response = messages.decode_response(answer.message())
    [output] = response.outputs
    [tensor] = output.tensors
    assert (output.engine_name, tensor.name, tensor.alias) == ("GeneralInferOp_0", "graph_out", "out")
    np.testing.assert_array_equal(tensor.unpack(), np.array([[2, 4]], np.float32), strict=True)
    begin, end = pb.Response.FromString(bytes(answer.message())).profile_time
    assert 0 <= end - begin < 60e6


@pytest.mark.parametrize(
    "name", ["attach_too_big", "bad_method", "bad_payload", "bad_service", "comp99", "lz4_req", "op_error"]
)
def test_genuine_errors_byte_for_byte(server, name):
    with connect(server.address) as client:
        client.sendall(genuine(f"{name}.req"))
        answer = read_frame(client)
    expected = frame_of(genuine(f"{name}.resp"))
    expected.meta.response.error_text = expected.meta.response.error_text.replace("127.0.0.1:19555", server.address)
    assert answer.meta.SerializeToString() == expected.meta.SerializeToString()
    assert not answer.payload


def test_a_bomb_is_refused_with_the_limit(doubler):
    packed = meta.for_request(3)
    packed.compress_type = compression.GZIP
    bomb = b"".join(frame.encode(packed, [gzip.compress(bytes(1_000_000))]))
    with serving(doubler, limits=Limits(body_bytes=20_000)) as server, connect(server.address) as client:
        client.sendall(bomb)
        answer = read_frame(client)
    assert "holds more than the 20000 bytes allowed" in answer.meta.response.error_text


def test_no_input_at_all_is_the_callers_fault(server):
    with connect(server.address) as client:
        client.sendall(genuine("empty_payload.req"))
        answer = read_frame(client)
    assert answer.meta.response.error_code == 1003
    assert "takes exactly these inputs: image" in answer.meta.response.error_text


@pytest.mark.parametrize("name", ["bad_magic", "garbage_meta", "meta_bigger_than_body", "too_big"])
def test_what_is_no_frame_ends_the_connection_and_nothing_else(server, name):
    with connect(server.address) as client:
        client.sendall(genuine(f"{name}.req"))
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    assert_alive(server)


@pytest.mark.parametrize(
    ("tensors", "fetch", "sentence"),
    [
        ([Tensor("x", "image", numbers(1))], ["nope"], "Unknown fetch; the model has: out."),
        ([Tensor("y", "y", numbers(1))], [], "unknown name or comes twice; the model takes: x."),
        ([Tensor("x", "", numbers(1)), Tensor("", "image", numbers(1))], [], "unknown name or comes twice"),
        ([Tensor("x", "image", numbers(1), lod=[0, 1])], [], "Level-of-detail offsets (lod) are not taken"),
        ([Tensor("x", "image", numbers(1))] * 257, [], "A request may bring its inputs 256 times at most."),
    ],
)
def test_inputs_and_names_that_do_not_fit_are_answered_in_words(server, tensors, fetch, sentence):
    with connect(server.address) as client:
        client.sendall(b"".join(frame.encode(meta.for_request(9), messages.encode_request(tensors, fetch))))
        answer = read_frame(client)
    assert (answer.meta.response.error_code, answer.meta.correlation_id) == (1003, 9)
    assert sentence in answer.meta.response.error_text


def test_runs_end_where_their_outputs_are_too_much_for_an_answer(server, doubler, monkeypatch):
    monkeypatch.setattr(service, "MAX_BODY", 100)
    payload = messages.encode_request([Tensor("x", "image", numbers(*range(10)))] * 9, ["out"])
    with connect(server.address) as client:
        client.sendall(b"".join(frame.encode(meta.for_request(1), payload)))
        answer = read_frame(client)
    assert answer.meta.response.error_code == 1003
    assert "The outputs take 120 bytes or more, and an answer may hold 100" in answer.meta.response.error_text
    assert doubler.calls == 3


def test_inputs_that_come_several_times_are_as_many_runs(server):
    """Each is answered with an output of its own, in order."""
    payload = messages.encode_request([Tensor("x", "image", numbers(n)) for n in (3, 1, 2)], ["out"])
    with connect(server.address) as client:
        client.sendall(b"".join(frame.encode(meta.for_request(1), payload)))
        outputs = messages.decode_response(read_frame(client).message()).outputs
    assert [output.engine_name for output in outputs] == ["GeneralInferOp_0"] * 3
    assert [[tensor.unpack().tolist() for tensor in output.tensors] for output in outputs] == [
        [[[6]]],
        [[[2]]],
        [[[4]]],
    ]


@pytest.mark.parametrize(("name", "alias"), [("x", ""), ("image", ""), ("anything", "image")])
def test_inputs_are_bound_by_name_or_alias(server, name, alias):
    payload = messages.encode_request([Tensor(name, alias, numbers(3))])
    with connect(server.address) as client:
        client.sendall(b"".join(frame.encode(meta.for_request(1), payload)))
        assert values(read_frame(client)) == [6]


def test_answers_overtake_each_other_on_one_connection(server, doubler):
    with connect(server.address) as client:
        client.sendall(request(10, -1) + request(11, 5) + genuine("pipelined2.req"))
        assert doubler.started.acquire(timeout=10)
        early = {answer.meta.correlation_id: values(answer) for answer in (read_frame(client) for _ in range(3))}
        assert early == {11: [10], 1: [2, 4], 2: [2, 4]}
        doubler.release.set()
        late = read_frame(client)
        assert (late.meta.correlation_id, values(late)) == (10, [-2])


def test_every_client_gets_its_own_answers(server):
    def many(offset):
        with remote(server.address) as client:
            for i in range(offset, offset + 50):
                assert client.predict({"image": numbers(i)}, ["out"])["out"].tolist() == [[2 * i]]
        done.release()

    done = threading.Semaphore(0)
    for n in range(8):
        threading.Thread(target=many, args=(1000 * n,)).start()
    for _ in range(8):
        assert done.acquire(timeout=60)


@pytest.mark.parametrize("pause", [0, 4, 12, 60, 129])
def test_a_frame_may_come_byte_by_byte_and_may_end_anywhere(server, pause):
    data = genuine("ok.req")
    with connect(server.address) as client:
        for byte in data:
            client.send(bytes([byte]))
        assert values(read_frame(client)) == [2, 4]
    with connect(server.address) as client:
        client.sendall(data[:pause])
    assert_alive(server)


def test_a_client_that_leaves_takes_its_waiting_requests_with_it(doubler):
    with serving(doubler, threads=1) as server:
        client = connect(server.address)
        client.sendall(request(1, -1) + b"".join(request(i, i) for i in range(2, 10)))
        wait_until(lambda: server._workers._accepted == 9)
        client.close()
        with connect(server.address) as other:
            other.sendall(request(1, 7))
            wait_until(lambda: server._workers._accepted == 2)  # the one at work and the other client's
            doubler.release.set()
            assert values(read_frame(other)) == [14]
        assert doubler.calls == 2


def test_requests_of_clients_that_left_take_no_memory(doubler):
    tensors = [Tensor("x", "image", np.zeros((1, 4_000_000), np.float32))]
    large = frame.encode(meta.for_request(2), messages.encode_request(tensors, ["out"]))
    with serving(doubler, threads=1) as server, connect(server.address) as busy:
        busy.sendall(request(1, -1))
        assert doubler.started.acquire(timeout=10)
        tracemalloc.start()  # what is held: how much of what was freed the allocator keeps depends on the tests before
        for _ in range(40):
            with connect(server.address) as client:
                client.sendall(b"".join(large))
                wait_until(lambda: server._workers._accepted == 2)
            wait_until(lambda: server._workers._accepted == 1)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 32e6, "of 640 MB sent"
        doubler.release.set()
        assert values(read_frame(busy)) == [-2]
    left = 'pd_query_request_failure_total{code="CLIENT_LEFT",protocol="brpc"} 40.0'
    assert left in server._protocols._service.metrics.page().decode()


def test_a_full_line_is_said_at_once(doubler):
    with serving(doubler, threads=1, limits=Limits(waiting=2)) as server, connect(server.address) as client:
        client.sendall(request(1, -1) + b"".join(request(i, i) for i in range(2, 5)))
        refused = read_frame(client)
        assert (refused.meta.correlation_id, refused.meta.response.error_code) == (4, 2004)
        assert "3 unanswered requests" in refused.meta.response.error_text
        doubler.release.set()
        assert {read_frame(client).meta.correlation_id for _ in range(3)} == {1, 2, 3}
        page = get(server, "/brpc_metrics").text
    assert 'pd_query_request_failure_total{code="OVERLOADED",protocol="brpc"} 1.0' in page


def test_a_deadline_spent_in_the_line_costs_no_inference(doubler):
    with serving(doubler, threads=1) as server, connect(server.address) as client:
        client.sendall(request(1, -1) + request(2, 5, timeout_ms=1))
        assert doubler.started.acquire(timeout=10)
        time.sleep(0.05)  # lets the second request's millisecond pass; more changes nothing
        doubler.release.set()
        answers = {answer.meta.correlation_id: answer for answer in (read_frame(client), read_frame(client))}
    assert answers[2].meta.response.error_code == 1008
    assert doubler.calls == 1


@pytest.mark.parametrize("pipelined", [32, 1])
def test_a_client_that_never_reads_holds_up_nobody_and_is_cut_off(doubler, pipelined):
    limits = Limits(send_seconds=0.5, pipelined=pipelined)
    with serving(doubler, threads=1, limits=limits) as server, connect(server.address) as deaf:
        large = [Tensor("x", "image", np.zeros((1, 4_000_000), np.float32))]
        deaf.sendall(b"".join(frame.encode(meta.for_request(1), messages.encode_request(large))))
        deaf.sendall(request(2, 5) + request(3, 5))  # allowed one, the reader waits with the next
        assert_alive(server)
        wait_until(lambda: not server._open)


def test_idle_connections_are_closed_but_not_while_an_answer_is_due(doubler):
    with (
        serving(doubler, limits=Limits(idle_seconds=0.3)) as server,
        connect(server.address) as silent,
        connect(server.address) as waiting,
    ):
        waiting.sendall(request(1, -1))
        assert silent.recv(1) == b""
        assert doubler.started.acquire(timeout=10)
        time.sleep(0.5)  # lets the idle time pass; more changes nothing
        answered = time.monotonic()
        doubler.release.set()
        assert values(read_frame(waiting)) == [-2]
        assert waiting.recv(1) == b""
        assert time.monotonic() - answered >= 0.3, "the idle time begins with the answer"


def test_connections_over_the_limit_are_closed(doubler):
    with serving(doubler, limits=Limits(connections=2)) as server:
        with connect(server.address) as first, connect(server.address) as second:
            for client in (first, second):
                client.sendall(request(1, 1))
                assert values(read_frame(client)) == [2]
            with connect(server.address) as third, contextlib.suppress(ConnectionResetError):
                assert third.recv(1) == b""
        wait_until(lambda: len(server._open) == 0)
        assert_alive(server)


def test_vanished_clients_leave_nothing_behind(server):
    for abrupt in (False, True):
        for _ in range(50):
            with connect(server.address) as client:
                if abrupt:  # ends with a reset
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(request(1, 1) + request(2, 2)[:50])
    wait_until(lambda: not server._open)
    wait_until(lambda: not [t for t in threading.enumerate() if t.name in ("connection", "brpc-writer")])
    assert_alive(server)


def test_stopping_answers_what_was_accepted_and_refuses_the_rest(doubler):
    with serving(doubler) as server, connect(server.address) as client:
        client.sendall(request(1, -1))
        assert doubler.started.acquire(timeout=10)
        drained = []
        stopper = threading.Thread(target=lambda: drained.append(server.stop(30)))
        stopper.start()
        wait_until(lambda: server._workers.draining)
        client.sendall(request(2, 5))
        refused = read_frame(client)
        assert (refused.meta.correlation_id, refused.meta.response.error_code) == (2, 2003)
        with pytest.raises(ConnectionRefusedError):
            connect(server.address)
        doubler.release.set()
        assert values(read_frame(client)) == [-2]
        assert client.recv(1) == b""
        stopper.join(10)
        assert drained == [True]


def test_stopping_does_not_wait_longer_than_its_grace(doubler):
    with serving(doubler) as server, connect(server.address) as client:
        client.sendall(request(1, -1))
        assert doubler.started.acquire(timeout=10)
        assert server.stop(0.1) is False
        assert client.recv(1) == b""


def test_a_bug_is_an_answer_without_its_details(doubler, server):
    doubler.predict = lambda *_: 1 / 0
    with connect(server.address) as client:
        client.sendall(request(1, 1))
        answer = read_frame(client)
    assert answer.meta.response.error_code == -5000
    assert answer.meta.response.error_text == f"[{server.address}][E-5000]The server failed; its log says more."


def test_an_answer_that_no_frame_holds_is_an_error(doubler, server):
    doubler.predict = lambda *_: {"out": np.zeros(frame.MAX_BODY // 4 + 1, np.float32)}
    with connect(server.address) as client:
        client.sendall(request(1, 1))
        answer = read_frame(client)
    assert answer.meta.response.error_code == 1003
    assert str(frame.MAX_BODY) in answer.meta.response.error_text


def test_a_request_id_that_is_no_text_is_passed_over(server):
    sent = meta.for_request(7, request_id="id-123")
    data = b"".join(frame.encode(sent, messages.encode_request([Tensor("x", "image", numbers(4))], ["out"])))
    with connect(server.address) as client:
        client.sendall(data.replace(b"id-123", b"\xff\xfe-123"))
        assert values(read_frame(client)) == [8]


def test_the_wait_for_a_thread_is_part_of_a_requests_time(doubler, caplog):
    caplog.set_level("INFO", "ocr_serving.access")
    with serving(doubler, threads=1) as server, connect(server.address) as client:
        client.sendall(request(1, -1) + request(2, 5))
        assert doubler.started.acquire(timeout=10)
        time.sleep(0.3)  # both requests take at least so long
        doubler.release.set()
        assert {read_frame(client).meta.correlation_id for _ in range(2)} == {1, 2}
        page = server._protocols._service.metrics.page().decode()
    [line] = [line for line in page.splitlines() if line.startswith("pd_query_request_duration_us_total")]
    assert float(line.split()[-1]) > 2 * 0.3e6
    assert [record.fields["ms"] > 250 for record in caplog.records if record.name == "ocr_serving.access"] == [True] * 2


def test_answers_are_not_compressed(server):
    with connect(server.address) as client:
        client.sendall(request(1, *[0] * 1000))
        assert read_frame(client).meta.compress_type == compression.NONE
