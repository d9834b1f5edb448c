"""Images of one request fail alone: the others' answers are what they would have been without them."""

import base64
import gc
import threading
import time
import weakref

import cv2
import numpy as np
import pytest

from ocr_serving import image
from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detection
from ocr_serving.errors import (
    BadInput,
    BadUpstream,
    DeadlineExceeded,
    EngineFailed,
    LimitExceeded,
    UpstreamUnavailable,
)
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE
from ocr_serving.pipeline import Pipeline
from ocr_serving.predictor.base import Predictor
from ocr_serving.recognition import Recognizer
from ocr_serving.settings import Settings
from ocr_serving.web.app import PATH, create_app
from ocr_serving.web.services import DetService, OcrService, RecService

CHARACTERS = ("", *"abcdefghij", " ")
POISON = 200
"""Grey of a crop that breaks the model."""


class GreyReader(Predictor):
    """A rec model that reads a crop's grey, 10 is "a", 20 is "b" ...; on a crop of POISON it does what it is told."""

    def __init__(self, fault) -> None:
        self.fault = fault
        self.batches: list[int] = []
        self._lock = threading.Lock()

    def predict(self, feed, fetch=(), deadline=None):
        crops = feed["x"]
        with self._lock:
            self.batches.append(len(crops))
        grey = crops[:, 24, 0, 0].astype(int)
        score = np.full((len(crops), 4), 0.9, np.float32)
        if (grey == POISON).any():
            if self.fault is not None:
                raise self.fault
            score[grey == POISON] = np.nan
        index = np.zeros((len(crops), 4), np.int32)
        index[:, 0] = np.where(grey == POISON, 1, grey // 10)
        return {CTC_INDEX: index, CTC_SCORE: score}

    def close(self):
        pass


FAULTS = {
    "the engine raises": (EngineFailed("The engine broke on this input."), 500, "ENGINE_FAILED"),
    "the answer is nonsense": (BadUpstream("The model answered nonsense."), 502, "BAD_UPSTREAM"),
    "the scores are NaN": (None, 502, "BAD_UPSTREAM"),
}


@pytest.fixture
def recognizers():
    made = []

    def make(fault):
        settings = Settings(device="gpu")  # on a CPU, batches are as small as there are cores for them
        made.append(Recognizer(GreyReader(fault), CHARACTERS, 48, settings))
        return made[-1]

    yield make
    for recognizer in made:
        recognizer.close()


def crop(grey: int):
    return np.full((48, 90, 3), grey, np.uint8)


def encoded(image) -> str:
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


def ask(service, *images: str, fetch=()):
    """Status and JSON of the answer to images in base64."""
    app = create_app(service, Settings(max_pixels=1_000_000))
    feed = [{"x": image} for image in images]
    answer = app.test_client().post(PATH, json={"feed": feed, "fetch": list(fetch)})
    return answer.status_code, answer.json


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.parametrize("place", [0, 3, 7])
def test_one_poisoned_line_among_seven_good_ones(recognizers, case, place):
    fault, _, code = FAULTS[case]
    recognizer = recognizers(fault)
    greys = [10, 20, 30, 40, 50, 60, 70]
    greys.insert(place, POISON)
    status, answer = ask(RecService(recognizer, 10**6), *[encoded(crop(grey)) for grey in greys], fetch=["scores"])
    result = answer["result"]
    texts = list("abcdefg")
    texts.insert(place, "")
    assert (status, result["res"]) == (200, texts)
    assert [error["index"] for error in result["errors"]] == [place]
    assert result["errors"][0]["code"] == code
    assert result["scores"] == [0.0 if text == "" else 0.9 for text in texts]


@pytest.mark.parametrize("case", FAULTS)
def test_a_line_that_is_alone_is_answered_with_its_errors_status(recognizers, case):
    fault, status, code = FAULTS[case]
    assert ask(RecService(recognizers(fault), 10**6), encoded(crop(POISON)))[0] == status
    answered, answer = ask(RecService(recognizers(fault), 10**6), *[encoded(crop(POISON))] * 3)
    assert (answered, answer["error"]["code"]) == (status, code)


def test_good_batches_are_not_run_again(recognizers):
    recognizer = recognizers(None)
    recognizer.recognize([crop(10 * i) for i in range(1, 9)])
    assert recognizer._predictor.batches == [8]


@pytest.mark.parametrize("fault", [UpstreamUnavailable("gone"), DeadlineExceeded("late")])
def test_what_concerns_all_lines_is_the_requests_error(recognizers, fault):
    status, answer = ask(RecService(recognizers(fault), 10**6), encoded(crop(10)), encoded(crop(POISON)))
    assert (status, answer["error"]["code"]) == (fault.status, fault.code)


NO_IMAGE = base64.b64encode(b"hello").decode()
TOO_LARGE = encoded(np.zeros((1001, 1000, 3), np.uint8))


@pytest.mark.parametrize(
    ("bad", "status", "code"), [(NO_IMAGE, 400, "INVALID_ARGUMENT"), (TOO_LARGE, 422, "LIMIT_EXCEEDED")]
)
def test_a_file_that_is_no_image_fails_alone(recognizers, bad, status, code):
    good = encoded(crop(20))
    rec = RecService(recognizers(None), 10**6)
    answered, answer = ask(rec, good, bad, good)
    assert answered == 200
    assert answer["result"]["res"] == ["b", "", "b"]
    [error] = answer["result"]["errors"]
    assert (error["index"], error["code"]) == (1, code)
    assert error["message"].startswith("feed[1].x: ")
    assert ask(rec, good, good)[1] == {"result": {"res": ["b", "b"]}}
    assert ask(rec, bad)[0] == status
    assert ask(rec, bad, bad)[0] == status


def test_the_images_of_a_rec_request_are_bounded_together(recognizers):
    """They are in memory at once, unlike those of the other services."""
    image = encoded(np.full((500, 900, 3), 30, np.uint8))
    _, answer = ask(RecService(recognizers(None), 1_000_000), *[image] * 3)
    assert answer["result"]["res"] == ["c", "c", ""]
    assert answer["result"]["errors"][0]["code"] == "LIMIT_EXCEEDED"


class StripeDetector:
    """Finds one box in each of a page's rows of 50 pixels."""

    def detect(self, image, deadline=None):
        rows = range(0, image.shape[0], 50)
        quads = [[[1, y + 1], [90, y + 1], [90, y + 48], [1, y + 48]] for y in rows]
        return Detection(np.array(quads, np.float32).reshape(-1, 4, 2), np.ones(len(quads), np.float32))


def page(*greys: int):
    return np.concatenate([np.full((50, 100, 3), grey, np.uint8) for grey in greys])


def test_a_box_that_cannot_be_read_is_named_beside_the_lines_that_can(recognizers):
    service = OcrService(Pipeline(StripeDetector(), recognizers(FAULTS["the engine raises"][0]), 0.5))
    status, answer = ask(service, encoded(page(10, POISON, 30)), fetch=["dt_boxes"])
    assert (status, answer["result"]["res"]) == (200, ["a", "c"])
    assert len(answer["result"]["dt_boxes"]) == 2
    [error] = answer["result"]["errors"]
    assert (error["code"], error["box"][0]) == ("ENGINE_FAILED", [1, 51])


def test_a_bad_page_stands_in_its_place(recognizers):
    service = OcrService(Pipeline(StripeDetector(), recognizers(FAULTS["the engine raises"][0]), 0.5))
    pages = [encoded(page(10)), NO_IMAGE, encoded(page(POISON)), encoded(page(20, 30))]
    status, answer = ask(service, *pages)
    assert status == 200
    first, second, third, fourth = answer["result"]
    assert (first, fourth) == ({"res": ["a"]}, {"res": ["b", "c"]})
    assert second["error"]["code"] == "INVALID_ARGUMENT"
    assert third["error"]["code"] == "ENGINE_FAILED"
    assert ask(service, encoded(page(POISON)))[0] == 500


def test_a_bad_image_stands_in_its_place_among_boxes():
    status, answer = ask(DetService(StripeDetector()), encoded(page(10)), NO_IMAGE)
    assert status == 200
    assert [list(item) for item in answer["result"]] == [["dt_boxes"], ["error"]]


def test_pages_are_decoded_one_at_a_time():
    """64 pages of the largest size would not fit into memory."""
    held = []

    class Watching(StripeDetector):
        def detect(self, image, deadline=None):
            held.append(decoded - len(held))
            return super().detect(image, deadline)

    decoded = 0

    def source():
        nonlocal decoded
        decoded += 1
        return page(10)

    DetService(Watching()).answer([source] * 5, ["dt_boxes"])
    assert held == [1] * 5


def test_pages_that_fail_are_not_kept():
    """Each error's trace would hold its page, and 64 of them do not fit into memory."""

    class Full(StripeDetector):
        def detect(self, image, deadline=None):
            pages.append(weakref.ref(image))
            raise LimitExceeded("Too many boxes.") from ValueError(f"{sum(page() is not None for page in pages)}")

    pages = []
    gc.disable()
    try:
        with pytest.raises(LimitExceeded):
            DetService(Full()).answer([lambda: page(10)] * 5, ["dt_boxes"])
        assert [page() for page in pages] == [None] * 5
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["det", "rec"])
def test_no_image_is_decoded_once_the_time_is_up(recognizers, kind):
    service = DetService(StripeDetector()) if kind == "det" else RecService(recognizers(None), 10**6)
    decoded = []

    class Slow:
        pixels = 100

        def __call__(self):
            decoded.append(time.sleep(0.2))
            raise BadInput("It is no image.")

    with pytest.raises(DeadlineExceeded):
        service.answer([Slow()] * 5, service.defaults, Deadline.after(0.3))
    assert len(decoded) == 2


def test_crops_for_which_there_is_no_room_are_not_decoded(recognizers, monkeypatch):
    decoded = []
    large = np.zeros((900, 1000, 3), np.uint8)
    monkeypatch.setattr(image, "_read", lambda data: decoded.append(data) or large)
    status, answer = ask(RecService(recognizers(None), 10**6), *[encoded(large)] * 2, encoded(large[:10]))
    assert status == 200
    assert [error["index"] for error in answer["result"]["errors"]] == [1, 2]
    assert len(decoded) == 1
