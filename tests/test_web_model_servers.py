"""The model servers behind the web services: not there, dead, frozen, several, and gone with their service."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import server_process
from ocr_requests import assert_error, feed, result
from server_process import free_port, running, web

DET_COMMAND = "python3 -m paddle_serving_server.serve --model ocr_det_model --port"


def pids_below(pid: int) -> list[int]:
    """The live children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def test_a_det_server_that_is_not_running_is_named_and_used_once_it_is(models):
    port = free_port()
    command = web("ocr_web", "--det-endpoint", f"127.0.0.1:{port}")
    body = {"feed": feed("rec_img/line_1.png"), "fetch": ["res"]}
    with running(*command, cwd=models) as server:
        started = time.monotonic()
        message = assert_error(server.post(body), 503, "UPSTREAM_UNAVAILABLE")
        assert time.monotonic() - started < 1
        assert message == f"No model server answers at 127.0.0.1:{port}. Start it with: {DET_COMMAND} {port}"
        with running(*server_process.model_server("ocr_det_model", port), cwd=models):
            assert result(server, body) == {"res": ["欢迎光临"]}
        assert server.post(body).status_code == 503


def test_another_model_server_in_the_det_server_s_place_is_not_the_callers_fault(models):
    port = free_port()
    body = {"feed": feed("rec_img/line_1.png"), "fetch": ["res"]}
    with (
        running(*server_process.model_server("ocr_rec_model", port), cwd=models),
        running(*web("ocr_web", "--det-endpoint", f"127.0.0.1:{port}"), cwd=models) as server,
    ):
        message = assert_error(server.post(body), 502, "BAD_UPSTREAM")
        assert message.startswith(f"What answers at 127.0.0.1:{port} is no det model server: ")


def test_a_det_server_killed_or_frozen_in_a_request_brings_an_answer_in_time(models):
    port = free_port()
    command = web("ocr_web", "--det-endpoint", f"127.0.0.1:{port}", "--request-timeout", "2")
    body = {"feed": feed("rec_img/line_1.png"), "fetch": ["res"]}
    with running(*command, cwd=models) as server:
        with running(*server_process.model_server("ocr_det_model", port), cwd=models) as det:
            assert result(server, body) == {"res": ["欢迎光临"]}
            det.process.send_signal(signal.SIGSTOP)
            answers = in_background(server, body)
            time.sleep(0.3)
            det.process.kill()
            det.process.send_signal(signal.SIGCONT)
            assert_error(answers(), 503, "UPSTREAM_UNAVAILABLE")
        with running(*server_process.model_server("ocr_det_model", port), cwd=models) as det:
            assert result(server, body) == {"res": ["欢迎光临"]}
            det.process.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            assert_error(server.post(body), 504, "DEADLINE_EXCEEDED")
            assert 1.5 < time.monotonic() - started < 5
            det.process.send_signal(signal.SIGCONT)
            assert result(server, body) == {"res": ["欢迎光临"]}


def test_of_several_det_servers_each_is_used_and_the_dead_one_is_passed_over(models):
    ports = [free_port(), free_port()]
    command = web("ocr_web", "--det-endpoint", ", ".join(f"127.0.0.1:{port}" for port in ports))
    body = {"feed": feed("rec_img/line_1.png"), "fetch": ["res"]}
    with contextlib.ExitStack() as stack:
        dets = [
            stack.enter_context(running(*server_process.model_server("ocr_det_model", port), cwd=models))
            for port in ports
        ]
        server = stack.enter_context(running(*command, cwd=models))
        for _ in range(4):
            assert result(server, body) == {"res": ["欢迎光临"]}
        for det in dets:
            det.wait_for_output("answered in")
        dets[0].process.kill()
        for _ in range(4):
            assert result(server, body) == {"res": ["欢迎光临"]}


def in_background(server, body):
    """Send a request from a thread; the value gives its answer."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(server.post(body)))
    thread.start()

    def wait():
        thread.join(60)
        return answers[0]

    return wait


def test_a_dead_rec_server_is_replaced_and_the_next_request_works(models):
    with running(*web("rec_web"), cwd=models) as server:
        body = {"feed": feed("rec_img/line_1.png"), "fetch": ["res"]}
        (child,) = pids_below(server.process.pid)
        for _ in range(2):
            assert result(server, body) == {"res": ["欢迎光临"]}
            os.kill(child, signal.SIGKILL)
            assert result(server, body) == {"res": ["欢迎光临"]}
            (successor,) = pids_below(server.process.pid)
            assert successor != child
            child = successor


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_service_ends_with_status_0_and_leaves_no_process(models, how):
    with running(*web("det_web"), cwd=models) as server:
        (child,) = pids_below(server.process.pid)
        status = server.stop(how)
    assert status == (0 if how != signal.SIGKILL else -signal.SIGKILL)
    deadline = time.monotonic() + 15
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
