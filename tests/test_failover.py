"""Two model servers, one of which is dead or dies: what it costs those who call them."""

import contextlib
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import server_process
import tiny_model
from rpc_peers import wait_until

from ocr_serving import model_dir
from ocr_serving.compat.client import Client
from ocr_serving.deadline import Deadline
from ocr_serving.errors import DeadlineExceeded
from ocr_serving.predictor import liveness
from ocr_serving.predictor.remote import RemotePredictor

X = np.ones((1, tiny_model.SIZE), np.float32)
CALLERS = 4

Call = Callable[[], float]


@contextlib.contextmanager
def remote_predictor(folder: Path, endpoints: list[str]) -> Iterator[Call]:
    model = model_dir.load(folder)
    with contextlib.closing(RemotePredictor(endpoints, model.feeds, model.fetches)) as predictor:
        yield lambda: float(predictor.predict({"x": X})["y"][0, 0])


@contextlib.contextmanager
def client(folder: Path, endpoints: list[str]) -> Iterator[Call]:
    client = Client(raise_on_error=True)
    client.load_client_config(str(folder / model_dir.SERVER_CONF))
    client.connect(endpoints)
    yield lambda: float(client.predict({"x": X}, ["y"], batch=True)["y"][0, 0])
    client.release()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Models that multiply by 2 and by 3, so that an answer tells who gave it."""
    return [tiny_model.write(tmp_path / name, factor) for name, factor in (("two", 2), ("three", 3))]


@pytest.mark.parametrize("connect", [remote_predictor, client])
def test_a_dead_endpoint_costs_no_request(folders, connect):
    command, port = server_process.model_server(str(folders[0]))
    dead = f"127.0.0.1:{server_process.free_port()}"
    with (
        server_process.running(command, port, folders[0]),
        connect(folders[0], [dead, f"127.0.0.1:{port}"]) as call,
        ThreadPoolExecutor(CALLERS) as pool,
    ):
        assert list(pool.map(lambda _: call(), range(200))) == [2.0] * 200


@pytest.mark.parametrize("connect", [remote_predictor, client])
def test_an_endpoint_that_is_killed_under_load_costs_no_request(folders, connect):
    """What was in flight there is asked of the other one, as a model may be run twice."""
    commands = [server_process.model_server(str(folder)) for folder in folders]
    endpoints = [f"127.0.0.1:{port}" for _, port in commands]
    answers: list[float] = []
    stopping = threading.Event()

    def keep_calling(call: Call) -> None:
        while not stopping.is_set():
            answers.append(call())

    def answered(count: int) -> None:
        """Return once so many more answers have come, or a call has failed."""
        goal = len(answers) + count
        wait_until(lambda: len(answers) >= goal or any(caller.done() for caller in callers))

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server_process.running(*command, folders[0])) for command in commands]
        call = stack.enter_context(connect(folders[0], endpoints))
        pool = stack.enter_context(ThreadPoolExecutor(CALLERS))
        stack.callback(stopping.set)
        callers = [pool.submit(keep_calling, call) for _ in range(CALLERS)]
        answered(200)
        assert min(Counter(answers)[factor] for factor in (2.0, 3.0)) > 50
        servers[0].process.kill()
        servers[0].process.wait()
        answers.clear()
        answered(200)
        stopping.set()
        for caller in callers:
            caller.result(60)  # raises what a call failed with
        assert Counter(answers)[2.0] <= CALLERS  # on their way when the server died


def test_a_silent_endpoint_is_learned_by_calls_that_have_little_time(folders, monkeypatch):
    monkeypatch.setattr(liveness, "SILENT_SECONDS", 0.5)
    command, port = server_process.model_server(str(folders[0]))
    model = model_dir.load(folders[0])
    with socket.create_server(("127.0.0.1", 0)) as silent, server_process.running(command, port, folders[0]):
        endpoints = [f"127.0.0.1:{silent.getsockname()[1]}", f"127.0.0.1:{port}"]
        with contextlib.closing(RemotePredictor(endpoints, model.feeds, model.fetches)) as predictor:
            late = 0
            for _ in range(12):
                try:
                    predictor.predict({"x": X}, deadline=Deadline.after(0.2))
                except DeadlineExceeded:
                    late += 1
    assert late == 3, "0.5 s of silence are as much as three calls wait"


def test_a_frozen_endpoint_costs_the_calls_of_its_first_moment(folders, monkeypatch):
    """It still accepts connections, as its kernel does that."""
    monkeypatch.setattr(liveness, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(liveness, "SHUN_SECONDS", 1.5)
    commands = [server_process.model_server(str(folder)) for folder in folders]
    model = model_dir.load(folders[0])
    endpoints = [f"127.0.0.1:{port}" for _, port in commands]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server_process.running(*command, folders[0])) for command in commands]
        predictor = stack.enter_context(contextlib.closing(RemotePredictor(endpoints, model.feeds, model.fetches)))

        def answers(seconds: float) -> list[float]:
            """Those to calls one after the other, 0 where there was none in time."""
            found = []
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                try:
                    found.append(float(predictor.predict({"x": X}, deadline=Deadline.after(0.6))["y"][0, 0]))
                except DeadlineExceeded:
                    found.append(0.0)
            return found

        assert set(answers(0.5)) == {2.0, 3.0}
        servers[0].process.send_signal(signal.SIGSTOP)
        try:
            counts = Counter(answers(1.5))
            assert counts[0.0] == 1
            assert counts[3.0] > 50
            with ThreadPoolExecutor(CALLERS) as pool:  # when it is tried again, one call does, or two at one moment
                counts = Counter(answer for found in pool.map(answers, [1.5] * CALLERS) for answer in found)
            assert 1 <= counts[0.0] <= 2
        finally:
            servers[0].process.send_signal(signal.SIGCONT)
        wait_until(lambda: 2.0 in answers(0.5))
