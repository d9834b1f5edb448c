"""The supervised model server: real child processes, killed, stopped and orphaned."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import server_process
import tiny_model
from rpc_peers import wait_until

from ocr_serving import endpoint, model_dir
from ocr_serving.deadline import Deadline
from ocr_serving.errors import ConfigError, UpstreamUnavailable
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.server import supervisor
from ocr_serving.server.supervisor import ModelServerProcess
from ocr_serving.settings import Settings

IMAGE = np.full((1, 64, 64, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def det(models: Path) -> Path:
    return models / "ocr_det_model"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_model.write(tmp_path / "tiny", 2)


@contextlib.contextmanager
def running(model: Path, port: int, **settings: object) -> Iterator[ModelServerProcess]:
    server = ModelServerProcess(model, Settings(worker_port=port, **settings))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def client_of(model: Path, address: str) -> Iterator[RemotePredictor]:
    folder = model_dir.load(model)
    with contextlib.closing(RemotePredictor(address, folder.feeds, folder.fetches)) as client:
        yield client


def predict(client: RemotePredictor) -> np.ndarray:
    [array] = client.predict({"x": IMAGE}, deadline=Deadline.after(60)).values()
    return array


def refuses(port: int) -> bool:
    """Whether nothing listens there; the system takes a moment to free what a killed process had."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_serves_comes_back_when_killed_and_leaves_nothing(det):
    port = server_process.free_port()
    with running(det, port) as server:
        assert server.endpoint == f"127.0.0.1:{port}"
        with client_of(det, server.endpoint) as client:
            expected = predict(client)
            killed = server._child.process.pid
            os.kill(killed, signal.SIGKILL)
            np.testing.assert_array_equal(predict(client), expected)  # at once: the port never closed
            assert server.restarts == 1
            assert server._child.process.pid != killed
            server.check()
        last = server._child.process.pid
    assert not alive(last)
    wait_until(lambda: refuses(port))


def test_a_request_under_way_when_the_child_is_killed_is_answered_by_the_next_one(det):
    with running(det, server_process.free_port()) as server, client_of(det, server.endpoint) as client:
        os.kill(server._child.process.pid, signal.SIGSTOP)
        answers = []
        caller = threading.Thread(target=lambda: answers.append(predict(client)))
        caller.start()
        caller.join(0.3)
        assert caller.is_alive()
        os.kill(server._child.process.pid, signal.SIGKILL)
        caller.join(60)
        assert len(answers) == 1


def test_takes_the_next_port_when_the_first_is_taken(det):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(det, port) as server:
            assert port < endpoint.parse(server.endpoint)[1] < port + 100


def test_listens_on_the_loopback_address_only(det):
    with running(det, server_process.free_port()) as server:
        listening = Path("/proc/net/tcp").read_text()
        port = endpoint.parse(server.endpoint)[1]
        assert f" 0100007F:{port:04X} 00000000:0000 0A " in listening
        assert f" 00000000:{port:04X} " not in listening


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_does_not_outlive_its_owner(det, how):
    code = (
        "import sys, time; from ocr_serving.settings import Settings; from ocr_serving.server.supervisor import *\n"
        f"server = ModelServerProcess({str(det)!r}, Settings(worker_port={server_process.free_port()}))\n"
        "server.start(); print(server._child.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        child = int(owner.stdout.readline())
        assert alive(child)
        owner.send_signal(how)
    wait_until(lambda: not alive(child))


def test_ctrl_c_in_the_terminal_is_left_to_the_owner(det):
    """The terminal sends SIGINT to a whole process group; a child in it would end and be started again."""
    with running(det, server_process.free_port()) as server:
        assert os.getpgid(server._child.process.pid) != os.getpgid(0)


def test_the_child_knows_no_api_key(tiny):
    """It has no use for them, and its environment can be read for as long as it lives."""
    with running(tiny, server_process.free_port(), api_keys=("a-secret-key",)) as server:
        environment = Path(f"/proc/{server._child.process.pid}/environ").read_bytes()
    assert b"OCR_WORKER_PORT=" in environment
    assert b"a-secret-key" not in environment


def test_a_child_that_hangs_is_killed(tiny, monkeypatch):
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.3)
    with running(tiny, server_process.free_port()) as server:
        os.kill(server._child.process.pid, signal.SIGSTOP)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        try:
            stopper.join(20)
            assert not stopper.is_alive()
            assert not alive(server._child.process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server._child.process.pid, signal.SIGCONT)  # else the next stop() would hang, too


def test_what_the_child_cannot_start_with_is_said_to_the_owner(det, tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        ModelServerProcess(tmp_path / "no_model", Settings(worker_port=server_process.free_port())).start()
    with pytest.raises(ConfigError, match="GPU"):
        ModelServerProcess(
            det, Settings(worker_port=server_process.free_port(), device="gpu", engine="openvino")
        ).start()


def kill_twice(server: ModelServerProcess) -> None:
    for restarts in (1, 2):
        wait_until(lambda before=restarts: server.restarts == before - 1 and alive(server._child.process.pid))
        os.kill(server._child.process.pid, signal.SIGKILL)
        wait_until(lambda before=restarts: server.restarts == before)


def test_a_crash_loop_is_reported_and_refused_at_once_and_ends(det, monkeypatch):
    monkeypatch.setattr(supervisor, "LOOP_FAILURES", 2)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 3.0)
    port = server_process.free_port()
    with running(det, port) as server, client_of(det, server.endpoint) as client:
        kill_twice(server)
        wait_until(lambda: server.failure is not None)
        with pytest.raises(UpstreamUnavailable, match="ocr_det_model died, or did not start, 2 times in a row"):
            server.check()
        wait_until(lambda: refuses(port))
        wait_until(lambda: server.failure is None)
        server.check()
        predict(client)


def test_a_start_that_fails_is_no_death(tiny, monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "LOOP_FAILURES", 2)
    port = server_process.free_port()
    with running(tiny, port) as server:
        kill_twice(server)
        wait_until(lambda: refuses(port))
        with endpoint.bind("127.0.0.1", port) as taken:
            taken.listen()
            wait_until(lambda: caplog.text.count("cannot be started") == 2)
            assert server.restarts == caplog.text.count("a new one starts") == 2
        wait_until(lambda: server.failure is None)
        assert server.restarts == 2


def test_a_death_now_and_then_is_no_crash_loop(tiny, monkeypatch):
    monkeypatch.setattr(supervisor, "STEADY_SECONDS", 0)
    monkeypatch.setattr(supervisor, "LOOP_FAILURES", 2)
    with running(tiny, server_process.free_port()) as server, client_of(tiny, server.endpoint) as client:
        for restarts in (1, 2):
            os.kill(server._child.process.pid, signal.SIGKILL)
            assert client.predict({"x": np.ones((1, tiny_model.SIZE), np.float32)})["y"][0, 0] == 2
            assert server.restarts == restarts
            server.check()
