"""Web services written for Paddle Serving 0.9, run as they are: as processes, and a subclass in this one."""

import base64
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rec_folder
import requests
import server_process
import zoo_models

from ocr_serving import model_writer
from ocr_serving.compat import numpy_bytes
from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import Variable
from paddle_serving_app.local_predict import LocalPredictor
from paddle_serving_app.reader import OCRReader
from paddle_serving_client import Client, HttpClient
from paddle_serving_server.web_service import WebService

ROOT = Path(__file__).parents[1]
LEGACY = Path(__file__).parent / "data" / "legacy"
SIGN = ["东湖公园", "EAST LAKE PARK", "游客中心 300 m", "请勿攀爬", "Visitor Centre", "No climbing"]
FETCH = "save_infer_model/scale_0.tmp_1"


def base64_of(path):
    return base64.b64encode((ROOT / path).read_bytes()).decode()


def blank():
    return base64.b64encode(cv2.imencode(".png", np.full((64, 96, 3), 255, np.uint8))[1].tobytes()).decode()


def body(*images):
    return {"feed": [{"x": image} for image in images], "fetch": ["res"]}


def legacy(name, *arguments):
    port = server_process.free_port()
    return [str(LEGACY / f"{name}.py"), str(port), *map(str, arguments)], port


@pytest.fixture(scope="module")
def ocr_rpc(models, det_server):
    with server_process.running(*legacy("ocr_rpc", det_server.port), models) as server:
        yield server


@pytest.fixture(scope="module")
def ocr_in_process(models):
    with server_process.running(*legacy("ocr_debugger"), models) as server:
        yield server


@pytest.fixture(scope="module")
def rec(models):
    with server_process.running(*legacy("rec"), models) as server:
        yield server


class TestLegacyFiles:
    @pytest.mark.parametrize("server", ["ocr_rpc", "ocr_in_process"])
    def test_ocr_reads_a_page(self, server, request):
        answer = request.getfixturevalue(server).post(body(base64_of("imgs/sign.jpg")))
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json() == {"result": {"res": SIGN}}
        assert answer.content.startswith(b'{"result":{"res":["\\u4e1c'), "compact and in ASCII, as the original"

    def test_rec_reads_a_batch_of_lines(self, rec):
        answer = rec.post(body(base64_of("rec_img/line_1.png"), base64_of("rec_img/line_2.png")))
        assert answer.json() == {"result": {"res": ["欢迎光临", "Platform 3"]}}

    def test_a_page_without_text_is_an_answer(self, ocr_in_process):
        """Its file returns two empty lists then, where the original said "not enough values to unpack"."""
        answer = ocr_in_process.post(body(blank()))
        assert (answer.status_code, answer.json()) == (200, {"result": {"res": []}})

    def test_value_errors_of_a_hook_are_the_result_as_in_the_original(self, rec, ocr_rpc):
        line = base64_of("rec_img/line_1.png")
        for server, images, result in (
            (rec, [line] * 5, "at most four lines"),
            (rec, ["abcde"], "Invalid base64-encoded string: number of data characters (5) cannot be 1 more"),
            (ocr_rpc, [blank()], "need at least one array to concatenate"),
        ):
            answer = server.post(body(*images))
            assert answer.status_code == 200
            assert answer.json()["result"].startswith(result)

    def test_other_faults_of_a_hook_are_500_without_a_trace(self, rec):
        for images in (["aGVsbG8="], [""], [7]):
            answer = rec.post(body(*images))
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "INTERNAL"
            assert "Traceback" not in answer.text
            assert "/" not in answer.text

    @pytest.mark.parametrize(
        ("content_type", "data"),
        [
            ("", b'{"feed":[{"x":""}],"fetch":[]}'),
            ("text/plain", b'{"feed":[{"x":""}],"fetch":[]}'),
            ("application/json", b"{"),
            ("application/json", b"{}"),
            ("application/json", b"[]"),
            ("application/json", b'{"feed":[{"x":""}]}'),
            ("application/json", b'{"fetch":[]}'),
            ("application/json", b'{"feed":[],"fetch":[]}'),
            ("application/json", b"[" * 100_000),
        ],
    )
    def test_what_is_no_request_is_400(self, rec, content_type, data):
        answer = requests.post(rec.url, data, headers={"Content-Type": content_type}, timeout=60)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "INVALID_ARGUMENT"

    def test_other_paths_and_methods(self, rec):
        base = rec.url.removesuffix("/ocr/prediction")
        assert requests.get(rec.url, timeout=60).status_code == 405
        for path in ("/", "/ocr/prediction/", "/rec/prediction"):
            answer = requests.post(base + path, json=body("x"), timeout=60)
            assert answer.status_code == 404
            assert "POST /ocr/prediction" in answer.json()["error"]["message"]

    def test_a_dead_det_server_is_500_not_a_hang(self, models):
        with server_process.running(*legacy("ocr_rpc", 1), models) as server:
            assert server.post(body(base64_of("imgs/sign.jpg"))).status_code == 500
            server.wait_for_output("No model server answers at 127.0.0.1:1")

    def test_it_ends_on_sigterm_with_its_model_server(self, models):
        with server_process.running(*legacy("rec"), models) as server:
            assert server.post(body(base64_of("rec_img/line_2.png"))).status_code == 200
            children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
            assert len(children) == 1
            assert server.stop(signal.SIGTERM) == 0
        assert not Path(f"/proc/{children[0]}").exists()


DEFAULT = "/default_service/prediction"


def in_process(service, model, **options):
    """A client of the service, whose model runs here."""
    service.load_model_config(model)
    service.prepare_server(**options)
    service.run_debugger_service()
    return service.get_app_instance().test_client()


@pytest.fixture
def small_det(tmp_path):
    """A det model for images of 64 x 96."""
    folder = tmp_path / "det_model"
    folder.mkdir()
    for file in ("inference.onnx", "inference.yml", "int8.json"):
        (folder / file).symlink_to(zoo_models.folder("ppocrv6_tiny_det") / file)
    x, y = Variable("x", "x", 1, (3, 64, 96)), Variable(FETCH, FETCH, 1, ())
    model_writer.write_conf(folder / "serving_server_conf.prototxt", [x], [y])
    return str(folder)


class TestWebService:
    def test_default_hooks_take_and_give_lists(self, small_det):
        service = WebService(name="det")
        service.load_model_config([small_det])
        service.prepare_server("models", 9292, "cpu", mem_optim=False)
        service.run_debugger_service()
        image = np.random.default_rng(0).standard_normal((3, 64, 96)).astype(np.float32)
        client = service.get_app_instance().test_client()
        request = {"feed": [{"x": image.tolist()}, {"x": image.ravel().tolist()}], "fetch": [FETCH]}
        result = client.post("/det/prediction", json=request).get_json()["result"]
        expected = zoo_models.predictor("ppocrv6_tiny_det").predict({"x": np.stack([image, image])})[FETCH]
        np.testing.assert_allclose(result[FETCH], expected, atol=1e-6)

    def test_a_rec_models_outputs_come_in_full_when_looked_at(self, models, monkeypatch):
        """OCRReader reads them in short form: of a dense page, the full one is larger than a frame may be."""
        seen = []

        class Lines(WebService):
            def preprocess(self, feed=[], fetch=[]):  # noqa: B006
                line = cv2.imread(str(ROOT / "rec_img" / "line_2.png"))
                return {"x": np.stack([OCRReader().resize_norm_img(line, 8)] * 2)}, [FETCH], True

            def postprocess(self, feed={}, fetch=[], fetch_map=None):  # noqa: B006
                short = OCRReader().postprocess_ocrv2(fetch_map)
                seen.append("data" in vars(fetch_map))
                in_full = OCRReader().postprocess_ocrv2({FETCH: fetch_map[FETCH]})
                assert [text for text, _ in short] == [text for text, _ in in_full] == ["Platform 3"] * 2
                np.testing.assert_allclose([s for _, s in short], [s for _, s in in_full], atol=1e-3)
                return {key: fetch_map[key].shape for key in fetch_map}

        monkeypatch.chdir(models)
        service = Lines("rec")
        service.load_model_config("ocr_rec_model")
        service.prepare_server()
        service.run_debugger_service()
        answer = service.get_app_instance().test_client().post("/rec/prediction", json=body("x"))
        shapes = answer.get_json()["result"]
        assert list(shapes) == [FETCH]
        assert shapes[FETCH][0] == 2
        assert seen == [False]

    def test_a_rec_model_is_read_with_its_own_dictionary(self, models, tmp_path, monkeypatch):
        """Whatever ocr_rec_model/ there is in the working directory, from which OCRReader takes its own."""

        class Lines(WebService):
            def preprocess(self, feed=[], fetch=[]):  # noqa: B006
                line = cv2.imread(str(ROOT / "rec_img" / "line_2.png"))
                return {"x": OCRReader().resize_norm_img(line, 8)[None]}, [FETCH], True

            def postprocess(self, feed={}, fetch=[], fetch_map=None):  # noqa: B006
                return {"res": [text for text, _ in OCRReader().postprocess_ocrv2(fetch_map)]}

        rec_folder.write(tmp_path / "ocr_rec_model", "uvwxyz")
        monkeypatch.chdir(tmp_path)
        answer = in_process(Lines(), str(models / "ocr_rec_model")).post(DEFAULT, json=body("x"))
        assert answer.get_json() == {"result": {"res": ["Platform 3"]}}

    def test_a_rec_models_outputs_may_be_the_result(self, models):
        """0.9's own postprocess, which users copied, turns them into lists in place."""

        class InPlace(WebService):
            def preprocess(self, feed=[], fetch=[]):  # noqa: B006
                return {"x": np.zeros((1, 3, 48, 64), np.float32)}, [FETCH], True

            def postprocess(self, feed=[], fetch=[], fetch_map=None):  # noqa: B006
                for key in fetch_map:
                    fetch_map[key] = fetch_map[key].tolist()
                return fetch_map

        answer = in_process(InPlace(), str(models / "ocr_rec_model")).post(DEFAULT, json=body("x"))
        assert np.shape(answer.get_json()["result"][FETCH])[0] == 1

    @pytest.mark.parametrize(("where", "status"), [("thread", -signal.SIGTERM), ("process", 0)])
    def test_it_runs_as_one_part_of_a_program(self, small_det, where, status):
        """In a thread, which may take no signals, or in a forked process, whose parent has the model server."""
        with server_process.running(*legacy("elsewhere", where), Path(small_det).parent) as server:
            image = np.zeros((3, 64, 96)).tolist()
            answer = server.post({"feed": [{"x": image}], "fetch": [FETCH]})
            assert np.shape(answer.json()["result"][FETCH]) == (1, 1, 64, 96)
            assert server.stop(signal.SIGTERM) == status

    def test_errors_of_the_model_have_their_own_status(self, small_det):
        class Wrong(WebService):
            def preprocess(self, feed=[], fetch=[]):  # noqa: B006
                return {"x": np.zeros((1, 3, 5), np.float32)}, fetch, True

        service = Wrong()
        service.load_model_config(small_det)
        service.prepare_server()
        service.run_debugger_service()
        answer = service.get_app_instance().test_client().post("/default_service/prediction", json=body("x"))
        assert answer.status_code == 400
        assert "must be float32" in answer.get_json()["error"]["message"]

    @pytest.mark.parametrize("late", ["preprocess", "postprocess"])
    def test_the_time_that_a_request_has_ends_its_work(self, models, late):
        """Before the model runs, and before it is asked again for all that it has to say."""

        class Slow(WebService):
            def preprocess(self, feed=[], fetch=[]):  # noqa: B006
                time.sleep(0.3 if late == "preprocess" else 0)
                return {"x": np.zeros((1, 3, 48, 320), np.float32)}, [FETCH], True

            def postprocess(self, feed={}, fetch=[], fetch_map=None):  # noqa: B006
                time.sleep(1 if late == "postprocess" else 0)
                return {key: fetch_map[key].shape for key in fetch_map}

        client = in_process(Slow(), str(models / "ocr_rec_model"))
        assert client.post(DEFAULT, json=body("x")).status_code == 200
        seconds = {"preprocess": "0.2", "postprocess": "0.9"}[late]
        answer = client.post(DEFAULT, json=body("x"), headers={"X-Request-Timeout": seconds})
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (504, "DEADLINE_EXCEEDED")

    def test_a_client_that_left_is_not_worked_for(self, small_det):
        client = in_process(WebService(), small_det)
        request = {"feed": [{"x": np.zeros((3, 64, 96)).tolist()}], "fetch": [FETCH]}
        for left, status in ((False, 200), (True, 499)):
            gone = {"waitress.client_disconnected": lambda left=left: left}
            assert client.post(DEFAULT, json=request, environ_overrides=gone).status_code == status

    def test_the_precision_is_that_of_prepare_server(self, small_det):
        service = WebService()
        in_process(service, small_det, precision="fp32")
        assert service.client._predictor.engine.precision == "f32"

    def test_a_precision_that_there_is_not_is_said(self, caplog):
        WebService().prepare_server(precision="int8")
        assert [record.getMessage() for record in caplog.records] == [
            "precision int8: no effect here; there are fp32, fp16, bf16."
        ]

    def test_what_get_prediction_returns_is_for_flask(self, small_det):
        class Teapot(WebService):
            def get_prediction(self, request):
                return {"result": "short and stout"}, 418

        answer = in_process(Teapot(), small_det).post(DEFAULT, json={"feed": [], "fetch": []})
        assert (answer.status_code, answer.get_json()) == (418, {"result": "short and stout"})

    def test_a_result_that_is_no_json_is_the_services_fault(self, small_det, caplog):
        class Returns(WebService):
            def preprocess(self, feed=(), fetch=()):
                return [], fetch, True

            def postprocess(self, feed=(), fetch=(), fetch_map=None):
                return {"y": np.zeros(3)}

        answer = in_process(Returns(), small_det).post(DEFAULT, json={"feed": [{}], "fetch": []})
        assert answer.status_code == 500
        assert answer.get_json()["error"]["code"] == "INTERNAL"
        assert "Object of type ndarray is not JSON serializable" in caplog.text

    def test_a_name_in_chinese_passes_the_gate(self, small_det):
        service = WebService("识别")
        client = in_process(service, small_det)
        service.get_app_instance().gate.closed = True
        assert client.post("/识别/prediction", json={"feed": [], "fetch": []}).status_code == 503
        assert b'route="/\xe8\xaf\x86\xe5\x88\xab/prediction",status="503"' in client.get("/metrics").data

    def test_a_compressed_body_is_refused_in_words(self, small_det):
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        answer = in_process(WebService(), small_det).post(DEFAULT, data=b"x", headers=headers)
        assert answer.status_code == 400
        assert "Content-Encoding is not supported" in answer.get_json()["error"]["message"]

    def test_setting_up_wrongly_is_said_in_words(self, small_det, tmp_path):
        service = WebService()
        with pytest.raises(ConfigError, match="must be called first"):
            service.run_debugger_service()
        with pytest.raises(ConfigError, match="cannot be read"):
            service.load_model_config(str(tmp_path / "none"))
        with pytest.raises(ConfigError, match="takes one model"):
            service.load_model_config([small_det, small_det])
        service.load_model_config(small_det)
        with pytest.raises(ConfigError, match="port"):
            service.prepare_server(port=0)
        service.prepare_server(port=9292)
        with pytest.raises(ConfigError, match="must be called first"):
            service.run_web_service()
        with pytest.raises(ConfigError, match="Pipeline"):
            service.prepare_pipeline_config("config.yml")

    @pytest.mark.parametrize(
        ("gpus", "expected"), [("0", ["0"]), ("1,2", ["1", "2"]), (3, ["3"]), (["4", 5], ["4", "5"]), ("", ["-1"])]
    )
    def test_gpus_in_every_form(self, gpus, expected):
        service = WebService()
        service.set_gpus(gpus)
        assert service.gpus == expected

    def test_a_gpu_that_is_not_there_is_said_in_words(self, small_det):
        service = WebService()
        service.load_model_config(small_det)
        service.prepare_server(gpuid="99")
        for run in (lambda: service.run_debugger_service(gpu=True), service.run_rpc_service):
            with pytest.raises(ConfigError, match=r"No GPU can be used|There is no GPU 99"):
                run()

    @pytest.mark.parametrize("made", [WebService, Client, HttpClient, LocalPredictor])
    def test_fromstring_reads_bytes_again(self, made, models, monkeypatch):
        """Every OCR example of 0.9 decodes its images with it; numpy 2.3 took that away."""
        monkeypatch.setattr(np, "fromstring", numpy_bytes._NUMPYS)
        each = made()
        if made in (Client, HttpClient):
            each.load_client_config(str(models / "ocr_det_client"))
        if made is LocalPredictor:
            each.load_model_config(str(models / "ocr_det_model"))
        read = np.fromstring(b"\x01\xff", np.uint8)
        assert read.tolist() == [1, 255]
        read[0] = 2
        assert np.fromstring("1, 2", sep=",").tolist() == [1.0, 2.0]
