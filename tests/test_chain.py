"""Det and rec chained in one server, and its client: the same texts as everywhere, and an answer to whatever comes."""

import ast
import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests
import server_process
import tritonclient.grpc
import tritonclient.http
import zoo_models
from hypothesis import given
from hypothesis import strategies as st
from server_process import ROOT, ServerProcess

from ocr_serving.compat.client import Client
from ocr_serving.compat.http_client import HttpClient
from ocr_serving.compat.ocr_reader import OCRReader
from ocr_serving.errors import BadInput, ConfigError, TooLarge
from ocr_serving.recognition import ctc_decode
from ocr_serving.server import chain
from ocr_serving.server.chain import ChainedPredictor, decisive_steps
from ocr_serving.settings import Settings

PAGES = sorted((ROOT / "imgs").iterdir())
REC = "save_infer_model/scale_0.tmp_1"
CHARACTERS = "_abc"


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[ServerProcess]:
    """The documented command, its --op left out as the original allows for these two names."""
    port = server_process.free_port()
    command = ["-m", "paddle_serving_server.serve", "--model", "ocr_det_model", "ocr_rec_model", "--port", str(port)]
    with server_process.running(command, port, models) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess, models: Path) -> Client:
    client = Client(raise_on_error=True)
    client.load_client_config([str(models / "ocr_det_client"), str(models / "ocr_rec_client")])
    client.connect([f"127.0.0.1:{server.port}"])
    return client


@pytest.fixture(scope="module")
def in_process() -> Iterator[ChainedPredictor]:
    det, rec = zoo_models.predictor("ocr_det"), zoo_models.predictor("ocr_rec")
    predictor = ChainedPredictor(det, det.model, rec, rec.model, Settings())
    yield predictor
    predictor.close()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


BLANK_PAGE = png(np.full((100, 200, 3), 255, np.uint8))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_texts_boxes_and_scores_are_those_of_the_web_services(client, ocr_web, ocr_debugger, page):
    data = encoded(page.read_bytes())
    body = {"feed": [{"x": data}], "fetch": ["res", "dt_boxes", "scores"]}
    over_rpc, in_process = (service.post(body).json()["result"] for service in (ocr_web, ocr_debugger))
    chained = client.predict({"x": data}, ["res", "dt_boxes", "scores"], batch=True)
    assert chained["res"].tolist() == over_rpc["res"] == in_process["res"]
    assert len(chained["res"]) > 3
    np.testing.assert_allclose(chained["dt_boxes"], in_process["dt_boxes"], atol=1e-3)
    np.testing.assert_allclose(chained["scores"], in_process["scores"], atol=1e-6)


def test_the_rec_output_decodes_to_the_same_texts_and_scores(client, models, monkeypatch):
    """What clients written for the original do: fetch the rec model's output, or everything, and decode it."""
    monkeypatch.chdir(models)
    reader = OCRReader()
    classes = len(zoo_models.predictor("ocr_rec").model.characters)
    image = encoded((models / "imgs" / "sign.jpg").read_bytes())
    expected = client.predict({"x": image}, ["res", "scores"], batch=True)
    for fetch in ([REC], []):
        answer = client.predict({"x": image}, fetch, batch=True)
        assert list(answer) == [REC]
        assert answer[REC].dtype == np.float32
        assert answer[REC].shape[::2] == (len(expected["res"]), classes)
        found = reader.postprocess_ocrv2(answer, with_score=True)
        assert [text for text, _ in found] == expected["res"].tolist()
        np.testing.assert_array_equal(np.array([score for _, score in found], np.float32), expected["scores"])


def test_the_compact_rec_outputs_decode_to_the_same_texts(client, in_process):
    image = encoded(PAGES[0].read_bytes())
    answer = client.predict({"x": image}, ["ctc_index", "ctc_score", "res"], batch=True)
    assert answer["ctc_index"].shape == answer["ctc_score"].shape
    characters = zoo_models.predictor("ocr_rec").model.characters
    lines = [ctc_decode(*row, characters) for row in zip(answer["ctc_index"], answer["ctc_score"], strict=True)]
    assert [line.text for line in lines] == answer["res"].tolist()


def test_an_image_without_text_is_an_answer_without_rows(client):
    answer = client.predict({"x": encoded(BLANK_PAGE)}, [REC, "ctc_index", "ctc_score", "res", "dt_boxes", "scores"])
    assert {name: array.shape for name, array in answer.items()} == {
        REC: (0, 0, len(zoo_models.predictor("ocr_rec").model.characters)),
        "ctc_index": (0, 0),
        "ctc_score": (0, 0),
        "res": (0,),
        "dt_boxes": (0, 4, 2),
        "scores": (0,),
    }


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (encoded(b"This is no image."), "not an image file"),
        (encoded(PAGES[0].read_bytes()[:5000]), "image"),
        ("%%%%", "as text it is not base64: only A-Z"),
        ("abc", "its length is no multiple of 4"),
        ("data:image/png;base64," + encoded(BLANK_PAGE), "it is a data: URI"),
        (np.array([encoded(BLANK_PAGE)] * 2), "not base64"),
        ("", "not an image file"),
    ],
    ids=["no image", "cut short", "no base64", "no whole base64", "data URI", "two images", "nothing"],
)
def test_what_is_no_image_is_refused_in_words(client, in_process, x, sentence):
    """The original's server died of it."""
    if isinstance(x, str):
        with pytest.raises(BadInput, match=sentence):
            client.predict({"x": x}, ["res"])
    content = np.frombuffer("\0".join(np.atleast_1d(x).tolist()).encode(), np.uint8)
    with pytest.raises(BadInput, match=sentence):
        in_process.predict({"x": content}, ["res"])
    assert client.predict({"x": encoded(BLANK_PAGE)}, ["res"])["res"].size == 0


def test_other_inputs_and_outputs_are_refused_with_the_good_ones(in_process):
    image = np.frombuffer(BLANK_PAGE, np.uint8)
    with pytest.raises(BadInput, match=r"base64 as a string .* or its bytes as uint8"):
        in_process.predict({"x": np.zeros((1, 3, 32, 32), np.float32)})
    with pytest.raises(BadInput, match=r"exactly this input: x"):
        in_process.predict({"y": image})
    with pytest.raises(BadInput, match=r"Unknown fetch; .* ctc_index, ctc_score, res, dt_boxes, scores"):
        in_process.predict({"x": image}, ["nope"])


def test_base64_may_be_wrapped_and_a_file_may_come_as_it_is(in_process):
    data = PAGES[-1].read_bytes()
    expected = in_process.predict({"x": np.frombuffer(data, np.uint8)}, ["res"])["res"].tolist()
    assert len(expected) > 3
    wrapped = np.frombuffer(base64.encodebytes(data), np.uint8)
    assert in_process.predict({"x": wrapped}, ["res"])["res"].tolist() == expected
    assert in_process.predict({"x": np.frombuffer(data, np.uint8)[None]}, ["res"])["res"].tolist() == expected


def test_probabilities_too_large_for_an_answer_are_refused_before_they_are_made(in_process, monkeypatch):
    monkeypatch.setattr(chain, "MAX_BODY", 4 * 2**20)
    image = np.frombuffer(PAGES[0].read_bytes(), np.uint8)
    with pytest.raises(TooLarge, match=r"fetch ctc_index and ctc_score, or res\."):
        in_process.predict({"x": image}, [REC])
    assert in_process.predict({"x": image}, ["res"])["res"].size > 10


@pytest.mark.parametrize("names", [("ocr_rec", "ocr_rec"), ("ocr_det", "ocr_det")])
def test_models_of_the_wrong_kind_are_refused(names):
    det, rec = (zoo_models.predictor(name) for name in names)
    with pytest.raises(ConfigError, match=r"is no (det|rec) model"):
        ChainedPredictor(det, det.model, rec, rec.model, Settings())


def test_texts_come_as_strings_in_every_protocol(client, server):
    data = PAGES[-1].read_bytes()
    expected = client.predict({"x": encoded(data)}, ["res"])["res"].tolist()
    tensor = {"name": "x", "elem_type": 20, "shape": [1], "data": [encoded(data)]}
    url = f"http://127.0.0.1:{server.port}/GeneralModelService/inference"
    answer = requests.post(url, json={"tensor": [tensor], "fetch_var_names": ["res"]}, timeout=60).json()
    [output] = answer["outputs"]
    assert output["engine_name"] == "GeneralInferOp_0"
    assert output["tensor"][0]["data"] == expected
    for oip in (tritonclient.http, tritonclient.grpc):
        for content in (np.array([encoded(data).encode()], object), np.frombuffer(data, np.uint8)):
            given = oip.InferInput("x", content.shape, "BYTES" if content.dtype == object else "UINT8")
            given.set_data_from_numpy(content)
            with oip.InferenceServerClient(f"127.0.0.1:{server.port}") as triton:
                result = triton.infer("ocr", [given], outputs=[oip.InferRequestedOutput("res")])
            assert [text.decode() for text in result.as_numpy("res")] == expected


@pytest.mark.parametrize("mode", ["proto", "json", "grpc"])
def test_the_http_client_takes_the_client_folders_as_they_are_too(server, models, client, mode):
    """In 0.9 both clients needed the det client's configuration edited: feed_type 20, shape 1."""
    data = encoded(PAGES[-1].read_bytes())
    over_http = HttpClient(raise_on_error=True)
    over_http.load_client_config([str(models / "ocr_det_client"), str(models / "ocr_rec_client")])
    over_http.set_http_proto(mode == "proto")
    over_http.set_use_grpc_client(mode == "grpc")
    over_http.connect([f"127.0.0.1:{server.port}"])
    for image in (data, data.encode()):
        answer = over_http.predict({"x": image}, ["res"], batch=True)
        texts = answer["outputs"][0]["tensor"][0]["data"] if mode == "json" else answer.outputs[0].tensor[0].data
        assert list(texts) == client.predict({"x": data}, ["res"])["res"].tolist()
    over_http.close()


def test_texts_come_as_json_in_the_open_inference_protocol(client, server):
    data = encoded(PAGES[-1].read_bytes())
    inputs = [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [data]}]
    url = f"http://127.0.0.1:{server.port}/v2/models/ocr/infer"
    [output] = requests.post(url, json={"inputs": inputs, "outputs": [{"name": "res"}]}, timeout=60).json()["outputs"]
    assert output["data"] == client.predict({"x": data}, ["res"])["res"].tolist()


def test_det_and_rec_are_served_under_their_own_names_too(server):
    for name in ("ocr", "ocr_det_model", "ocr_rec_model"):
        assert requests.get(f"http://127.0.0.1:{server.port}/v2/models/{name}/ready", timeout=60).status_code == 200
    server.wait_for_output("Serving ocr_det_model and ocr_rec_model on")


def test_the_client_of_the_repository_prints_the_texts_of_imgs(server, models, client):
    """ocr_cpp_client.py as documented, but for the port, which is another test's."""
    script = (ROOT / "ocr_cpp_client.py").read_text()
    assert "127.0.0.1:9293" in script
    (models / "ocr_cpp_client.py").write_text(script.replace("127.0.0.1:9293", f"127.0.0.1:{server.port}"))
    command = [sys.executable, "ocr_cpp_client.py", "ocr_det_client", "ocr_rec_client"]
    done = subprocess.run(command, cwd=models, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    texts = [client.predict({"x": encoded(page.read_bytes())}, ["res"])["res"].tolist() for page in PAGES]
    assert [ast.literal_eval(line)["res"] for line in done.stdout.splitlines()] == texts


def test_the_client_without_a_server_says_so_in_one_line(models):
    port = server_process.free_port()
    script = (ROOT / "ocr_cpp_client.py").read_text().replace(":9293", f":{port}")
    (models / "alone.py").write_text(script)
    command = [sys.executable, "alone.py", "ocr_det_client", "ocr_rec_client"]
    done = subprocess.run(command, cwd=models, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"No model server answers at 127.0.0.1:{port}.\n"


def test_the_client_says_how_it_is_called():
    command = [sys.executable, str(ROOT / "ocr_cpp_client.py"), "ocr_det_client"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "usage: ocr_cpp_client.py ocr_det_client ocr_rec_client\n")


@given(st.lists(st.integers(0, len(CHARACTERS) - 1), max_size=20))
def test_the_decisive_steps_decode_to_the_same_text_and_score(classes):
    index = np.array(classes, np.int32)
    score = np.linspace(0.1, 0.9, len(index), dtype=np.float32)
    kept = decisive_steps(index)
    assert ctc_decode(index[kept], score[kept], CHARACTERS) == ctc_decode(index, score, CHARACTERS)
    characters = [i for i in index[kept] if i]
    assert len(kept) <= 2 * len(characters)
