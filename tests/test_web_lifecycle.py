"""The web services' life as processes: ready or not, traced across processes, drained, ended."""

import base64
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
import server_process
from rpc_peers import wait_until
from server_process import ROOT, free_port, running, web

from ocr_serving.engine.processor import has_amx

LINE = base64.b64encode((ROOT / "rec_img/line_1.png").read_bytes()).decode()
PAGE = base64.b64encode((ROOT / "imgs/document.jpg").read_bytes()).decode()


def get(server, path):
    return requests.get(f"http://127.0.0.1:{server.port}{path}", timeout=60)


def post(server, *images, **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"feed": [{"x": image} for image in images], "fetch": []}
    return requests.post(server.url, json=body, headers=given, timeout=120)


def metric(server, series):
    for line in get(server, "/metrics").text.splitlines():
        if line.startswith(f"{series} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_ready_follows_the_det_server_and_an_id_reaches_its_log(models):
    port = free_port()
    command = web("ocr_web", "--det-endpoint", f"127.0.0.1:{port}", "--log-format", "json")
    with running(*command, cwd=models) as server:
        assert get(server, "/health/live").status_code == 200
        wait_until(lambda: get(server, "/health/ready").json()["faults"].keys() == {"det"})  # rec gets warm first
        assert get(server, "/health/ready").status_code == 503
        with running(*server_process.model_server("ocr_det_model", port), cwd=models) as det:
            wait_until(lambda: get(server, "/health/ready").status_code == 200)
            answer = post(server, LINE, X_Request_Id="trace.me-1")
            assert (answer.status_code, answer.headers["X-Request-Id"]) == (200, "trace.me-1")
            assert post(server, LINE, X_Request_Id="bad id!").status_code == 200
            det.wait_for_output("[trace.me-1]")
            assert "bad id!" not in det.output
            server.wait_for_output('"request_id": "trace.me-1"')
            lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
            [line] = [line for line in lines if line.get("request_id") == "trace.me-1"]
            assert (line["route"], line["status"]) == ("/ocr/prediction", 200)
            assert line["stages_ms"].keys() == {"queue", "parse", "decode", "det", "crop", "rec", "encode"}
            assert metric(server, 'ocr_batch_size_count{model="det"}') == 2
            rec = 'engine="openvino",model="ocr_rec_model",precision="bf16"'
            if not has_amx():
                rec = 'engine="onnxruntime",model="ocr_rec_model",precision="int8"'
            info = get(server, "/metrics").text
            assert f'ocr_model_info{{{rec},role="rec"}} 1.0' in info
            assert 'ocr_model_info{engine="remote",model="",precision="",role="det"} 1.0' in info
        wait_until(lambda: get(server, "/health/ready").status_code == 503)


def test_a_model_server_that_died_is_counted_and_ready_again(models):
    with running(*web("rec_web"), cwd=models) as server:
        wait_until(lambda: get(server, "/health/ready").status_code == 200)
        [child] = psutil.Process(server.process.pid).children()
        child.kill()
        wait_until(lambda: metric(server, 'ocr_model_server_restarts_total{role="rec"}') == 1)
        wait_until(lambda: get(server, "/health/ready").status_code == 200)
        assert metric(server, 'ocr_model_server_crash_loop{role="rec"}') == 0
        assert post(server, LINE).json() == {"result": {"res": ["欢迎光临"]}}


def accepted(server):
    return metric(server, "ocr_running_requests") + metric(server, "ocr_queued_requests")


def test_sigterm_answers_all_that_was_accepted_and_ends_with_status_0(models):
    command = web("ocr_debugger", "--max-running", "2", "--drain-seconds", "200", "--request-timeout", "200")
    with running(*command, cwd=models) as server, ThreadPoolExecutor(5) as pool:
        pending = [pool.submit(post, server, PAGE) for _ in range(5)]
        wait_until(lambda: accepted(server) == 5)
        server.process.send_signal(signal.SIGTERM)
        statuses = [get(server, "/health/ready").status_code, get(server, "/health/live").status_code]
        late = post(server, LINE)
        assert statuses == [503, 200]
        assert (late.status_code, late.json()["error"]["code"]) == (503, "SHUTTING_DOWN")
        answers = [future.result() for future in pending]
        assert [answer.status_code for answer in answers] == [200] * 5
        assert len({answer.content for answer in answers}) == 1
        assert server.process.wait(server_process.STOP_SECONDS) == 0


@pytest.mark.parametrize("door", ["ocr_debugger", "rec_web"])
def test_a_second_sigterm_ends_it_at_once(models, door):
    with running(*web(door), cwd=models) as server, ThreadPoolExecutor(1) as pool:
        children = psutil.Process(server.process.pid).children()
        pending = pool.submit(post, server, *[PAGE] * 64)
        wait_until(lambda: accepted(server) == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: get(server, "/health/ready").status_code == 503)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(server_process.STOP_SECONDS) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 3
        with pytest.raises(requests.ConnectionError):
            pending.result()
        psutil.wait_procs(children, timeout=10)
        assert not any(child.is_running() for child in children)


def test_the_grace_is_not_exceeded(models):
    with running(*web("ocr_debugger", "--drain-seconds", "0.5"), cwd=models) as server, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(post, server, *[PAGE] * 64)
        wait_until(lambda: accepted(server) == 1)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(server_process.STOP_SECONDS) == 0
        assert time.monotonic() - began < 8
        with pytest.raises(requests.ConnectionError):
            pending.result()


def test_a_service_that_is_open_to_all_says_so(models):
    for flags, warned in ((["--host", "0.0.0.0"], True), (["--host", "0.0.0.0", "--api-keys", "0123456789"], False)):
        with running(*web("rec_debugger", *flags), cwd=models) as server:
            server.wait_for_output("is ready")
            assert post(server, LINE).status_code == (200 if warned else 401)
            if warned:
                server.wait_for_output("asks for no API key")
            else:
                assert "asks for no API key" not in server.output
            assert ("Authorization: Bearer" in server.output) == (not warned), "the line to try it"


def test_a_full_log_pipe_blocks_nobody(models):
    """As when stderr goes to a program that has stopped reading."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    with server_process.running(*web("rec_debugger"), cwd=models, stderr=writer) as server:
        os.close(writer)
        assert [post(server, LINE).status_code for _ in range(20)] == [200] * 20
        assert server.stop() == 0
    os.close(reader)


WITH_STDOUT = """
import os, sys
how, *command = sys.argv[1:]
if how == "full":
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
elif how == "closed":
    os.close(1)
else:
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(reader)
os.execv(sys.executable, [sys.executable, *command])
"""


@pytest.mark.parametrize("how", ["full", "closed", "unread"])
@pytest.mark.parametrize("door", ["rec_debugger", "det model"])
def test_a_server_needs_nobody_to_read_what_it_prints(door, how, models):
    command, port = server_process.model_server("ocr_det_model") if door == "det model" else web(door)
    with running(["-c", WITH_STDOUT, how, *command], port, cwd=models) as server:
        assert server.stop() == 0
