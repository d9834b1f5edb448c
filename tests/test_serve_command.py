"""`python3 -m paddle_serving_server.serve` as a user types it, with the real det model."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import server_process
import zoo_models
from rpc_peers import connect, wait_until
from server_process import ServerProcess

import paddle_serving_server
from ocr_serving import model_dir
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, OcrServingError, UpstreamUnavailable
from ocr_serving.predictor.remote import RemotePredictor

SERVE = ["-m", "paddle_serving_server.serve"]


def serve(*flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where it is expected to end by itself."""
    return subprocess.run([sys.executable, *SERVE, *flags], cwd=cwd, capture_output=True, text=True, timeout=60)


@contextlib.contextmanager
def serving(models: Path) -> Iterator[tuple[ServerProcess, RemotePredictor]]:
    port = server_process.free_port()
    folder = model_dir.load(models / "ocr_det_model")
    command = [*SERVE, "--model", "ocr_det_model", "--port", str(port)]
    with (
        server_process.running(command, port, models) as server,
        contextlib.closing(RemotePredictor(f"127.0.0.1:{port}", folder.feeds, folder.fetches)) as client,
    ):
        yield server, client


@pytest.fixture(scope="module")
def det(models: Path) -> Iterator[tuple[ServerProcess, RemotePredictor]]:
    with serving(models) as running:
        yield running


def cpu_seconds(server: ServerProcess) -> float:
    user, system = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def page() -> np.ndarray:
    """A page of text as det takes it, uint8 (1, 960, 960, 3)."""
    image = np.full((960, 960, 3), 255, np.uint8)
    for y in range(60, 960, 60):
        cv2.putText(image, f"line {y} of the page", (40, y), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 3)
    return image[np.newaxis]


def test_says_what_it_serves_and_where(det):
    server, _ = det
    line = rf"^Serving \S+ on 127.0.0.1:{server.port} \(engine openvino, precision \S+\)\.$"
    wait_until(lambda: re.search(line, server.output, re.MULTILINE))
    server.wait_for_output("C++ Serving service started successfully!\n")  # scripts of the original's users wait for it


def test_over_rpc_and_in_process_is_the_same_bit_for_bit(det):
    _, client = det
    image = page()
    local = zoo_models.predictor("ocr_det")
    normalised = np.ascontiguousarray(((image / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype(np.float32))
    for feed in ({"x": image}, {"x": normalised}):
        expected, got = local.predict(feed), client.predict(feed)
        assert expected.keys() == got.keys()
        for alias in expected:
            np.testing.assert_array_equal(got[alias], expected[alias], strict=True)


def test_what_the_model_does_not_take_is_said_to_the_caller(det):
    _, client = det
    with pytest.raises(BadInput, match=r"must be float32 .* or uint8"):
        client.predict({"x": np.zeros((1, 2), np.float32)})


def test_sigterm_lets_the_accepted_requests_be_answered(models):
    """Ten requests are there when the signal comes; those that were accepted get answers, the rest a refusal."""
    with serving(models) as (server, client):
        outcomes = []

        def call():
            try:
                outcomes.append(client.predict({"x": page()}, deadline=Deadline.after(60)))
            except OcrServingError as error:
                outcomes.append(error)

        callers = [threading.Thread(target=call) for _ in range(10)]
        for caller in callers:
            caller.start()
        wait_until(lambda: outcomes)
        assert server.stop() == 0
        for caller in callers:
            caller.join(30)
        answered = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        assert len(outcomes) == 10
        assert all(isinstance(outcome, (dict, UpstreamUnavailable)) for outcome in outcomes)
        assert len(answered) > 1
        with pytest.raises(ConnectionRefusedError):
            connect(f"127.0.0.1:{server.port}")


def test_a_second_signal_ends_it_at_once(models):
    with serving(models) as (server, client):
        long_request = {"x": np.zeros((16, 1280, 1280, 3), np.uint8)}  # seconds of work

        def call():
            with pytest.raises(UpstreamUnavailable):
                client.predict(long_request)

        caller = threading.Thread(target=call)
        idle = cpu_seconds(server)
        caller.start()
        while cpu_seconds(server) < idle + 0.5:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionError):  # refused, or reset while it closes
            while True:  # until the first signal has closed the port
                connect(f"127.0.0.1:{server.port}").close()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 128 + signal.SIGTERM
        caller.join(30)


def test_on_paddle_which_has_a_handler_of_its_own_it_ends_with_status_0_too(tmp_path, monkeypatch):
    monkeypatch.setenv("OCR_ENGINE", "paddle")
    command, port = server_process.model_server(str(zoo_models.folder("ppocrv4_mobile_det")))
    with server_process.running(command, port, tmp_path) as server:
        assert server.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_ends_with_status_0_and_no_trace(models, how):
    with serving(models) as (server, _):
        server.process.send_signal(how)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.output


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--port", "9293"], "You must specify your serving model"),
        (["--model", "no_such_model"], "Model folder no_such_model does not exist; get one with: "),
        (["--model", "empty"], "empty is no serving folder, as it has no serving_server_conf.prototxt; make one"),
        (["--model", "ocr_det_model", "--port", "0"], "port"),
        (["--model", "ocr_det_model", "--port", "70000"], "port"),
        (["--model", "ocr_det_model", "--gpu_ids", "banana"], "--gpu_ids takes the number of one GPU"),
        (["--model", "ocr_det_model", "--thread", "0"], "--thread takes a number of 1 or more"),
        (["--model", "ocr_det_model", "--host", "no-such-host.invalid"], "Cannot listen on no-such-host.invalid"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(models, flags, sentence):
    (models / "empty").mkdir(exist_ok=True)
    ended = serve(*flags, cwd=models)
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_a_taken_port_is_said_before_the_model_is_loaded(models):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve("--model", "ocr_det_model", "--port", str(port), cwd=models)
    assert ended.returncode == 2
    assert ended.stderr == f"127.0.0.1:{port} is taken by another process; choose another port with --port.\n"


@pytest.mark.parametrize(
    "line",
    [
        "from paddle_serving_server.web_service import WebService, Op",
        "from paddle_serving_server.pipeline import PipelineClient",
        "from paddle_serving_server import pipeline",
    ],
)
def test_pipeline_scripts_learn_what_there_is_instead(line):
    """They import Op first: what prepare_pipeline_config says, they never reached."""
    with pytest.raises(ImportError, match=r"Pipeline services .* not offered; python3 ocr_web_server\.py reads"):
        exec(line, {})


@pytest.mark.parametrize("name", ["OpMaker", "OpSeqMaker", "Server"])
def test_parts_of_a_server_name_the_command_that_takes_their_place(name):
    with pytest.raises(ImportError, match=f"no paddle_serving_server.{name} here.*-m paddle_serving_server.serve"):
        exec(f"from paddle_serving_server import {name}", {})  # as the original's scripts do
    assert not hasattr(paddle_serving_server, "NoSuchName")
