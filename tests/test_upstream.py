"""Addresses and connections of RemotePredictor: servers that are dead, silent, slow, killed and back again."""

import contextlib
import itertools
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import server_process
from rpc_peers import Doubler, numbers, remote, serving, wait_until
from scripted_peer import answer_with, peer

from ocr_serving import endpoint
from ocr_serving.deadline import Deadline
from ocr_serving.errors import DeadlineExceeded, UpstreamUnavailable
from ocr_serving.model_dir import Variable
from ocr_serving.predictor import channel
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.wire.tensor import Tensor

IMAGE = {"image": numbers(1, 2)}
OUT = Tensor("graph_out", "out", numbers(2, 4))


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


def test_a_host_that_never_takes_the_connection_costs_its_time_once(monkeypatch):
    monkeypatch.setattr(channel, "CONNECT_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # more than it lets wait
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        client = stack.enter_context(remote(endpoint.of_socket(full)))
        began = time.monotonic()
        with pytest.raises(UpstreamUnavailable):
            client.predict(IMAGE, deadline=Deadline.after(30))
        assert 0.3 <= time.monotonic() - began < 0.75


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


def test_connections_that_died_unseen_do_not_hide_a_server_that_lives():
    """As those that a firewall forgot: the next byte on each is answered with a reset."""
    waiting = threading.Barrier(4)
    calls = itertools.count()

    def answer(number, request):
        if number:
            return None
        if next(calls) < 4:
            waiting.wait(10)
        return answer_with(OUT)(number, request)

    with peer(answer) as server, remote(server.address) as client, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: client.predict(IMAGE), range(4)))
        assert client.predict(IMAGE)["out"].tolist() == [[2, 4]]


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


def test_a_host_that_takes_no_connection_in_time_costs_the_deadline():
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.create_connection(listener.getsockname()),  # nobody takes it, and no other one has room beside it
        remote(endpoint.of_socket(listener)) as client,
        pytest.raises(DeadlineExceeded, match="could be called"),
    ):
        client.predict(IMAGE, deadline=Deadline.after(0.2))


def test_a_client_closed_during_a_call_closes_its_connection_after_it():
    doubler = Doubler()
    with serving(doubler) as server:
        with remote(server.address) as client:
            caller = threading.Thread(target=client.predict, args=({"image": numbers(-1)},))
            caller.start()
            assert doubler.started.acquire(timeout=10)
        doubler.release.set()
        caller.join(10)
        wait_until(lambda: not server._open)


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


def test_a_server_killed_in_mid_request_is_unavailable(models: Path):
    """A real process, killed with SIGKILL while the request is in it."""
    command, port = server_process.model_server("ocr_det_model")
    with server_process.running(command, port, models) as server:
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
