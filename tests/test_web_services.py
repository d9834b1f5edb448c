"""The web services as users run them: real processes, real models, what they answer and how they end."""

import base64
import json
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import requests
from ocr_requests import assert_error, feed, result, without_spaces
from server_process import ROOT, free_port, running, web

from ocr_serving import samples
from ocr_serving.settings import Settings
from ocr_serving.web.command import local_url

SAMPLES = {sample.name: sample for sample in samples.render()}
SERVICES = ["ocr_web", "ocr_debugger", "det_web", "det_debugger", "rec_web", "rec_debugger"]


def encoded(image) -> str:
    _, png = cv2.imencode(".png", image)
    return base64.b64encode(png).decode()


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("imgs/")])
def test_the_text_of_a_picture_is_the_same_over_rpc_and_in_process(ocr_web, ocr_debugger, name):
    body = {"feed": feed(name), "fetch": ["res", "dt_boxes", "scores"]}
    over_rpc, in_process = result(ocr_web, body), result(ocr_debugger, body)
    assert sorted(without_spaces(over_rpc["res"])) == sorted(without_spaces(SAMPLES[name].texts))
    assert over_rpc["res"] == in_process["res"]
    np.testing.assert_allclose(over_rpc["dt_boxes"], in_process["dt_boxes"], atol=1e-3)
    np.testing.assert_allclose(over_rpc["scores"], in_process["scores"], atol=1e-3)
    assert np.shape(over_rpc["dt_boxes"]) == (len(over_rpc["res"]), 4, 2)


def test_the_originals_client_call_gets_the_originals_bytes(ocr_web, rec_web):
    image = base64.b64encode((ROOT / "rec_img/line_1.png").read_bytes()).decode("utf8")
    data = {"feed": [{"x": image}], "fetch": ["save_infer_model/scale_0.tmp_1"]}
    for server in (ocr_web, rec_web):
        answer = requests.post(
            url=server.url, headers={"Content-type": "application/json"}, data=json.dumps(data), timeout=60
        )
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.content == b'{"result":{"res":["\\u6b22\\u8fce\\u5149\\u4e34"]}}\n'
    answer = rec_web.post({"feed": [{"x": image}] * 3, "fetch": ["res"]})
    assert answer.json() == {"result": {"res": ["欢迎光临"] * 3}}


@pytest.mark.parametrize("where", ["web", "debugger"])
def test_the_det_service_answers_boxes(request, where):
    server = request.getfixturevalue(f"det_{where}")
    found = result(server, {"feed": feed("imgs/sign.jpg"), "fetch": ["res"]})
    assert set(found) == {"dt_boxes"}
    boxes = np.array(found["dt_boxes"], np.float32)
    assert boxes.shape == (6, 4, 2)
    for quad in SAMPLES["imgs/sign.jpg"].quads:
        assert max(cv2.intersectConvexConvex(quad, box)[0] for box in boxes) > 0.8 * cv2.contourArea(quad)
    with_scores = result(server, {"feed": feed("imgs/sign.jpg"), "fetch": ["scores"]})
    assert with_scores["dt_boxes"] == found["dt_boxes"]
    assert len(with_scores["scores"]) == 6
    assert 0.5 < min(with_scores["scores"]) <= max(with_scores["scores"]) <= 1


@pytest.mark.parametrize("where", ["web", "debugger"])
def test_the_rec_service_reads_lines_in_their_order(request, where):
    server = request.getfixturevalue(f"rec_{where}")
    names = ["rec_img/line_5.png", "rec_img/line_1.png", "rec_img/line_2.png"]
    found = result(server, {"feed": feed(*names), "fetch": ["res", "scores"]})
    assert found["res"] == [SAMPLES[name].texts[0] for name in names]
    assert all(0.9 < score <= 1 for score in found["scores"])


@pytest.mark.parametrize("where", ["web", "debugger"])
def test_several_images_are_answered_in_order(request, where):
    names = ["rec_img/line_2.png", "rec_img/line_1.png"]
    blank = {"x": encoded(np.full((60, 80, 3), 255, np.uint8))}
    ocr = request.getfixturevalue(f"ocr_{where}")
    answer = ocr.post({"feed": [*feed(*names), blank], "fetch": ["res"]})
    assert answer.json() == {"result": [{"res": ["Platform 3"]}, {"res": ["欢迎光临"]}, {"res": []}]}
    det = request.getfixturevalue(f"det_{where}")
    boxes = result(det, {"feed": [*feed(*names), blank], "fetch": ["dt_boxes"]})
    assert [len(found["dt_boxes"]) for found in boxes] == [1, 1, 0]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("ocr_web", b'{"result":{"res":[]}}\n'),
        ("ocr_debugger", b'{"result":{"res":[]}}\n'),
        ("det_web", b'{"result":{"dt_boxes":[]}}\n'),
        ("det_debugger", b'{"result":{"dt_boxes":[]}}\n'),
        ("rec_web", b'{"result":{"res":[""]}}\n'),
        ("rec_debugger", b'{"result":{"res":[""]}}\n'),
    ],
)
@pytest.mark.parametrize("size", [(300, 200), (1, 1), (1, 500)])
def test_an_image_without_text_is_an_answer(request, name, body, size):
    server = request.getfixturevalue(name)
    answer = server.post({"feed": [{"x": encoded(np.full((*size, 3), 255, np.uint8))}], "fetch": ["res"]})
    assert (answer.status_code, answer.content) == (200, body)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_wrong_is_said_with_400(request, name):
    server = request.getfixturevalue(name)
    (good,) = feed("rec_img/line_1.png")
    bad = {
        "not base64": {"feed": [{"x": "%%%"}], "fetch": []},
        "not an image": {"feed": [{"x": "aGVsbG8="}], "fetch": []},
        "no image in it": {"feed": [{"x": "aGVsbG8="}, {"x": "aGVsbG8="}], "fetch": []},
        "empty feed": {"feed": [], "fetch": []},
        "no feed": {"fetch": ["res"]},
        "unknown fetch": {"feed": [good], "fetch": ["bogus"]},
    }
    for case, body in bad.items():
        assert len(assert_error(server.post(body), 400, "INVALID_ARGUMENT")) > 20, case
    answer = requests.post(server.url, data="{}", headers={"Content-Type": "text/plain"}, timeout=60)
    assert "application/json" in assert_error(answer, 400, "INVALID_ARGUMENT")
    assert requests.get(server.url, timeout=60).status_code == 405


def test_80_requests_8_at_a_time_answer_as_alone(ocr_web):
    """Images of 20 sizes, some two in a request: no answer depends on what else is under way."""
    random.seed(1)
    sign = SAMPLES["imgs/sign.jpg"].image
    bodies = []
    for i in range(20):
        scale = 0.3 + 0.02 * i
        top, left = random.randrange(40), random.randrange(60)
        part = sign[280 + top : 520, 170 + left : 620]  # three lines
        images = [cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)]
        if i % 5 == 0:
            images.append(SAMPLES[f"rec_img/line_{1 + i // 5}.png"].image)
        bodies.append({"feed": [{"x": encoded(image)} for image in images], "fetch": ["dt_boxes", "scores"]})
    alone = [result(ocr_web, body) for body in bodies]
    assert sum(len(found["res"]) for found in alone if isinstance(found, dict)) > 40
    order = [*range(20)] * 4
    random.shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: result(ocr_web, bodies[i]), order))
    for i, found in zip(order, together, strict=True):
        assert found == alone[i]


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]"), ("ocr.test", "ocr.test")],
)
def test_the_url_that_a_service_prints_can_be_called(host, shown):
    assert local_url(Settings(host=host, port=80)) == f"http://{shown}:80/ocr/prediction"


def test_a_service_says_where_it_is_and_a_line_to_try_it(models):
    with running(*web("rec_debugger"), cwd=models) as server:
        server.wait_for_output("Try it")
        ready, line = server.output.splitlines()[:2]
        assert ready == f"The rec service is ready: POST {server.url}"
        if not shutil.which("curl"):
            pytest.skip("no curl here")
        done = subprocess.run(line.removeprefix("Try it:"), shell=True, cwd=ROOT, capture_output=True, timeout=60)
    assert json.loads(done.stdout) == {"result": {"res": ["欢迎光临"]}}, done.stderr


@pytest.fixture(scope="module")
def broken_models(models, tmp_path_factory):
    """Model folders that are damaged in several ways, beside the right ones."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ("cut", "nonsense", "no_dictionary"):
        shutil.copytree(models / "ocr_rec_model", folder / name)
    model = folder / "cut" / "inference.onnx"
    model.write_bytes(model.read_bytes()[:100_000])
    (folder / "nonsense" / "serving_server_conf.prototxt").write_text("not a prototxt")
    (folder / "no_dictionary" / "inference.yml").write_text("Global: {}")
    (folder / "empty").mkdir()
    for name in ("ocr_det_model", "ocr_rec_model"):
        (folder / name).symlink_to(models / name)
    return folder


WRONG = {
    "the device": (["tpu"], "invalid choice: 'tpu'"),
    "a GPU": (["gpu"], "No GPU can be used"),
    "a flag": (["cpu", "--prot", "9"], "unrecognized arguments: --prot; did you mean --port?"),
    "a value": (["cpu", "--port", "many"], "port in the command line must be a whole number from 1 up to 65535"),
    "too many places": (["cpu", "--max-queued", "30000"], "max_queued in the command line must be .* up to 1000"),
    "an address": (["cpu", "--host", "192.0.2.1"], "Cannot listen on 192.0.2.1"),
    "no such folder": (["cpu", "--rec-model", "missing"], "Model folder missing does not exist.*--get_model NAME"),
    "an empty folder": (["cpu", "--rec-model", "empty"], "empty is no serving folder.*convert --dirname empty"),
    "a damaged prototxt": (["cpu", "--rec-model", "nonsense"], "serving_server_conf.prototxt is damaged"),
    "a damaged model": (["cpu", "--rec-model", "cut"], "inference.onnx"),
    "a folder without a dictionary": (["cpu", "--rec-model", "no_dictionary"], "no_dictionary is no rec model"),
    "the det folder": (["cpu", "--rec-model", "ocr_det_model"], "ocr_det_model is no rec model"),
    "a file": (["cpu", "--rec-model", "cut/inference.onnx"], "inference.onnx is a file; unpack it"),
}


@pytest.mark.parametrize(
    ("door", "case"),
    [("rec_web", case) for case in WRONG] + [(door, "a damaged model") for door in ("ocr_web", "rec_debugger")],
)
def test_a_service_that_cannot_start_says_so_in_one_line(broken_models, door, case, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments, message = WRONG[case]
    assert_does_not_start(
        door, [*arguments, *(["--port", str(free_port())] if "--port" not in arguments else [])], broken_models, message
    )


def test_a_folder_that_is_no_det_model_is_said_at_start(models):
    arguments = ["cpu", "--det-model", "ocr_rec_model", "--port", str(free_port())]
    assert_does_not_start("det_debugger", arguments, models, "ocr_rec_model is no det model")


def test_too_few_files_are_said_at_start(models):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = [sys.executable, str(ROOT / "rec_debugger_server.py"), "cpu", "--port", str(free_port())]
    done = subprocess.run(["bash", "-c", 'ulimit -n 100; exec "$@"', "bash", *command], cwd=models,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert (done.returncode, resource.getrlimit(resource.RLIMIT_NOFILE)) == (2, limits)
    assert "may open 100 files only; allow 128 or more: ulimit -n 1024" in done.stderr


def test_settings_are_flags_in_either_spelling(models):
    command, port = web("det_debugger", "--det_limit_side", "640", "--request_timeout", "9")
    with running(command, port, models) as server:
        assert result(server, {"feed": [{"x": encoded(SAMPLES["imgs/sign.jpg"].image)}], "fetch": ["res"]})


@pytest.mark.parametrize("door", SERVICES)
def test_a_port_that_is_taken_is_said_in_one_line(models, door):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_does_not_start(door, ["cpu", "--port", str(port)], models, f"127.0.0.1:{port} is taken.*--port")


def assert_does_not_start(door, arguments, cwd, message):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{door}_server.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert time.monotonic() - started < 10
