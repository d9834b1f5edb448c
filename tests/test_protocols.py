"""Every protocol gets the same det output for the same image, bit for bit, from one running server."""

import contextlib

import cv2
import numpy as np
import pytest
from harness.protocol_clients import CLIENTS
from server_process import ROOT

from ocr_serving import model_dir
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings


@pytest.fixture(scope="module")
def page():
    """A sample image as the original's clients send it: float32 (1, 3, h, w), normalised."""
    image = cv2.resize(cv2.imread(str(ROOT / "imgs" / "sign.jpg")), (320, 224))
    normalised = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None], np.float32)


@pytest.fixture(scope="module")
def model(models):
    return model_dir.load(models / "ocr_det_model")


@pytest.fixture(scope="module")
def expected(model, page):
    """What the engine answers without a server in between."""
    with contextlib.closing(LocalPredictor.load(model, Settings())) as predictor:
        [answer] = predictor.predict({"x": page}).values()
    assert answer.shape == (1, 1, 224, 320)
    assert 0.5 < answer.max() <= 1
    return answer


@pytest.mark.parametrize("protocol", CLIENTS)
def test_every_protocol_brings_the_same_map(det_server, model, page, expected, protocol):
    with CLIENTS[protocol](f"127.0.0.1:{det_server.port}", model) as call:
        np.testing.assert_array_equal(call(page), expected, strict=True)
