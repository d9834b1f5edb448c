"""Flags of `python3 -m paddle_serving_server.serve`: all of the original's, honoured or said to do nothing."""

import contextlib
import resource
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import server_process
import tiny_model
from server_process import ServerProcess

from ocr_serving import model_dir
from ocr_serving.errors import EngineFailed
from ocr_serving.predictor.remote import RemotePredictor

SERVE = ["-m", "paddle_serving_server.serve"]
X = np.ones((1, tiny_model.SIZE), np.float32)
WITHOUT_EFFECT = (
    "--device gpu --workdir here --use_mkl --use_calib --mem_optim_off --ir_optim --use_encryption_model "
    "--encryption_rpc_port 12000 --use_trt --use_lite --use_xpu --use_ascend_cl --product_name p --container_id c "
    "--gpu_multi_stream --request_cache_size 100 --use_dist_model --dist_carrier_id i --dist_cfg_file f "
    "--dist_endpoints e --dist_nranks 2 --dist_subgraph_index 1 --dist_worker_serving_endpoints w "
    "--dist_master_serving --min_subgraph_size 3 4 --gpu_memory_mb 50 --cpu_math_thread_num 1 "
    "--trt_workspace_size 1000 --trt_use_static"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models `two` and `three`, named for their factors."""
    folder = tmp_path_factory.mktemp("models")
    tiny_model.write(folder / "two", 2)
    tiny_model.write(folder / "three", 3)
    return folder


def serve(*flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where it is expected to end by itself."""
    return subprocess.run([sys.executable, *SERVE, *flags], cwd=cwd, capture_output=True, text=True, timeout=60)


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[tuple[ServerProcess, RemotePredictor]]:
    port = server_process.free_port()
    read = model_dir.load(folder / "two")
    with (
        server_process.running([*SERVE, *flags, "--port", str(port)], port, folder) as server,
        contextlib.closing(RemotePredictor(f"127.0.0.1:{port}", read.feeds, read.fetches)) as client,
    ):
        yield server, client


def test_every_flag_without_effect_is_taken_and_named_in_one_line(folder):
    with serving(folder, "start", *WITHOUT_EFFECT.split(), "--precision", "int8", "--model", "two") as (server, client):
        assert client.predict({"x": X})["y"][0, 0] == 2
        server.wait_for_output(": no effect here.")
        [line] = [line for line in server.output.splitlines() if line.endswith(": no effect here.")]
        flags = [word for word in WITHOUT_EFFECT.split() if word.startswith("--")]
        assert line.removesuffix(": no effect here.").split(", ") == flags
        server.wait_for_output("precision int8: no effect here; there are fp32, fp16, bf16.")


def test_nothing_is_said_about_flags_that_have_an_effect(folder):
    flags = "--model two --thread 16 --gpu_ids -1 --runtime_thread_num 0 --batch_infer_size 32 --precision fp32"
    with serving(folder, *flags.split(), "--max_body_size", str(2**27), "--op", "GeneralInferOp") as (server, client):
        assert client.predict({"x": X})["y"][0, 0] == 2
        server.wait_for_output("(engine openvino, precision f32).")
        assert "no effect" not in server.output


def test_several_models_run_in_sequence(folder):
    with serving(folder, "--model", "two", "three") as (server, client):
        assert client.predict({"x": X}, ["y"])["y"][0, 0] == 6
        server.wait_for_output("Serving two and three on")
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/status") as page:
            assert "models: sequence, two, three" in page.read().decode()


def test_a_sequence_of_models_that_do_not_fit_is_refused(folder):
    other = tiny_model.write(folder / "other", 5)
    conf = other / "serving_server_conf.prototxt"
    conf.write_text(conf.read_text() + 'feed_var { name: "z" alias_name: "z" feed_type: 1 shape: 1 }\n')
    ended = serve("--model", "two", "other", "--port", str(server_process.free_port()), cwd=folder)
    assert ended.returncode == 2
    assert "GeneralInferOp_1 cannot follow GeneralInferOp_0: it takes x, z" in ended.stderr


def test_batches_of_several_requests_bring_everyone_his_own(folder):
    flags = ["--model", "two", "--runtime_thread_num", "2", "--batch_infer_size", "4"]
    with serving(folder, *flags) as (_, client), ThreadPoolExecutor(16) as pool:

        def call(i):
            rows = 1 + i % 7
            answer = client.predict({"x": np.full((rows, tiny_model.SIZE), i, np.float32)})["y"]
            return answer.shape == (rows, tiny_model.SIZE) and (answer == 2 * i).all()

        assert all(pool.map(call, range(100)))


def test_max_body_size_bounds_a_request(folder):
    too_large = np.zeros((2**26 // 2048 + 1, tiny_model.SIZE), np.float32)
    with serving(folder, "--model", "two", "--max_body_size", str(2**26)) as (server, client):
        body = too_large.tobytes()
        with socket.create_connection(("127.0.0.1", server.port)) as sock, sock.makefile("rb") as answer:
            path = b"/GeneralModelService/inference"
            sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(body)))
            assert b" 413 " in answer.readline()
        assert client.predict({"x": X})["y"][0, 0] == 2
    with serving(folder, "--model", "two", "--max_body_size", "1000") as (server, client):
        server.wait_for_output("max_body_size: less than 67108864 has no effect; the limit stays 536870912 bytes.")
        assert client.predict({"x": X})["y"][0, 0] == 2


def test_enable_prometheus_serves_the_metrics_on_a_port_of_their_own(folder):
    port = server_process.free_port()
    with serving(folder, "--model", "two", "--enable_prometheus", "--prometheus_port", str(port)) as (_, client):
        client.predict({"x": X})
        with pytest.raises(EngineFailed):
            client.predict({"x": X[:, :1]})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            lines = page.read().decode().splitlines()
    assert 'pd_query_request_success_total{protocol="brpc"} 1.0' in lines
    assert any(line.startswith("pd_query_request_failure_total{") and line.endswith(" 1.0") for line in lines)
    assert 'pd_inference_count_total{model="two"} 2.0' in lines


def test_a_taken_prometheus_port_is_said(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ["--enable_prometheus", "--prometheus_port", str(taken.getsockname()[1])]
        ended = serve("--model", "two", "--port", str(server_process.free_port()), *flags, cwd=folder)
    assert ended.returncode == 2
    assert ended.stderr.startswith("The metrics cannot be served on 127.0.0.1:")
    assert ended.stderr.count("\n") == 1


def test_a_prometheus_port_that_is_none_is_said(folder):
    flags = ["--port", str(server_process.free_port()), "--enable_prometheus", "--prometheus_port", "99999"]
    ended = serve("--model", "two", *flags, cwd=folder)
    assert (ended.returncode, ended.stderr) == (2, "The metrics need a port from 1 to 65535, not 99999.\n")


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_server_that_others_can_reach_says_so(folder, host, warned):
    with serving(folder, "--model", "two", "--host", host) as (server, client):
        assert client.predict({"x": X})["y"][0, 0] == 2
        server.wait_for_output("answered in")
        assert ("who reaches it can use it" in server.output) == warned


def test_more_connections_than_a_process_may_open_files_by_default(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        server, client = stack.enter_context(serving(folder, "--model", "two"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(250):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert client.predict({"x": X})["y"][0, 0] == 2


@pytest.mark.parametrize("command", ["stop", "kill", "check"])
def test_the_other_commands_say_that_they_do_nothing(folder, command):
    ended = serve(command, "--port", "9293", cwd=folder)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{command} does nothing here; end a server with Ctrl-C")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--model two --op GeneralFooOp", "There is no op GeneralFooOp; there are GeneralReaderOp, GeneralDetectionOp"),
        ("--model two --op GeneralInferOp:1", "There is no op GeneralInferOp:1"),
        ("--model two --op GeneralInferOp:0", "GeneralInferOp does not run without a model"),
        ("--model two --op GeneralReaderOp:0 GeneralResponseOp:0", "1 models are given for 0 ops"),
        ("--model two three --op GeneralInferOp", "2 models are given for 1 ops that take one: GeneralInferOp."),
        ("--model two three --op GeneralInferOp GeneralDetectionOp", "in this order are not served"),
        ("--model two three --op GeneralDetectionOp GeneralInferOp", "two is no det model"),
        ("--model two --op GeneralDetectionOp", "in this order are not served"),
        ("--model two --gpu_ids 0,x banana", "--gpu_ids takes the number of one GPU, or -1 for the CPU, not '0,x'"),
        ("--model two three --gpu_ids -1 0", "No GPU can be used"),
        ("--model two --runtime_thread_num -1", "--runtime_thread_num takes a number of 0 or more, not -1."),
        ("--model two --batch_infer_size 0", "--batch_infer_size takes a number of 1 or more, not 0."),
        ("--model two --thread four", "argument --thread: invalid int value: 'four'"),
        ("--model two --no_such_flag", "unrecognized arguments: --no_such_flag"),
        ("restart", "invalid choice: 'restart'"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(folder, flags, sentence, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ended = serve(*flags.split(), "--port", str(server_process.free_port()), cwd=folder)
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
