"""/openapi.json says what the service does: schemathesis, which tries it out, finds nothing against it."""

import os
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
import web_stub

from ocr_serving import errors
from ocr_serving.settings import Settings
from ocr_serving.web import openapi
from ocr_serving.web.app import PATH
from ocr_serving.web.services import DetService, OcrService, RecService

TESTS = Path(__file__).parent
KEY = "a-key-for-schemathesis"


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_schemathesis_finds_nothing(keys, tmp_path):
    with web_stub.running(Settings(api_keys=keys, public_metrics=False)) as web:
        header = ["--header", f"Authorization: Bearer {KEY}"] if keys else []
        command = ["run", f"http://127.0.0.1:{web.port}/openapi.json", "--checks", "all", "--max-examples", "15"]
        done = subprocess.run(
            [
                Path(sys.executable).parent / "st",
                "--config-file",
                TESTS / "data" / "schemathesis.toml",
                *command,
                "--generation-deterministic",
                *header,
            ],
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "data.schemathesis_hooks", "PYTHONPATH": str(TESTS)},
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert web.service.calls > 0, "it got as far as the engine"


def test_the_document_and_the_app_have_the_same_routes():
    with web_stub.running() as web:
        document = web.app.test_client().get("/openapi.json").json
        routes = {
            (rule.rule, method.lower())
            for rule in web.app.url_map.iter_rules()
            for method in rule.methods - {"HEAD", "OPTIONS"}
        }
    assert routes == {(path, method) for path, methods in document["paths"].items() for method in methods}


def test_every_status_of_an_error_is_in_the_document():
    document = openapi.document(PATH, {}, {}, Settings(api_keys=(KEY,)))
    statuses = document["paths"][PATH]["post"]["responses"].keys()
    raised = {error.status for error in vars(errors).values() if isinstance(error, type)}
    unseen = {errors.NotFound.status, errors.ClientLeft.status}  # another path, and nobody there to see it
    assert {str(status) for status in raised - unseen} <= statuses


BOX = [[0, 0], [9, 0], [9, 9], [0, 9]]
FAULT = {"code": "ENGINE_FAILED", "message": "The engine broke."}


@pytest.mark.parametrize(
    ("service", "result"),
    [
        (OcrService, {"res": ["a"]}),
        (OcrService, {"res": ["a"], "dt_boxes": [BOX], "scores": [0.5], "errors": [{**FAULT, "box": BOX}]}),
        (OcrService, [{"res": []}, {"error": FAULT}]),
        (DetService, {"dt_boxes": [BOX]}),
        (DetService, [{"dt_boxes": [], "scores": []}, {"error": FAULT}]),
        (RecService, {"res": ["a", ""], "scores": [0.5, 0], "errors": [{**FAULT, "index": 1}]}),
    ],
)
def test_results_fit_their_schema(service, result):
    assert jsonschema_rs.is_valid(openapi.result_of(service), result)


@pytest.mark.parametrize(
    ("service", "result"),
    [
        (OcrService, {"dt_boxes": [BOX]}),
        (DetService, {"res": []}),
        (RecService, [{"res": []}]),
        (OcrService, {"res": [1]}),
    ],
)
def test_others_do_not(service, result):
    assert not jsonschema_rs.is_valid(openapi.result_of(service), result)
