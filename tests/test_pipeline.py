"""Det, crops and rec together, on small images: words and lines that were cut out."""

import time

import cv2
import numpy as np
import pytest

from ocr_serving.detection import Detection
from ocr_serving.draw import WEIGHT
from ocr_serving.recognition import Line


def cut_out(text, size, margin):
    """The text, dark on light, with so many pixels around its letters."""
    picture = np.full((3 * size, 2 * size * len(text), 3), 225, np.uint8)
    cv2.putText(picture, text, (size, 2 * size), (40, 30, 30), cv2.FontFace("sans"), size, WEIGHT)
    x, y, width, height = cv2.boundingRect((picture[..., 0] < 200).astype(np.uint8))
    return np.ascontiguousarray(picture[y - margin : y + height + margin, x - margin : x + width + margin])


@pytest.mark.parametrize("text", ["Garden", "Platform 3", "1998", "total: 86.50", "7"])
@pytest.mark.parametrize(("size", "margin"), [(24, 0), (48, 2)])
def test_letters_may_touch_the_edge(text, size, margin, pipeline):
    assert [found.replace(" ", "") for found in pipeline.run(cut_out(text, size, margin)).texts] == [
        text.replace(" ", "")
    ]


def test_a_thin_line_is_not_read_as_text(pipeline):
    """At the height of a line it would be a quarter of a million pixels long."""
    begin = time.process_time()
    assert pipeline.run(np.full((1, 5000, 3), 255, np.uint8)).texts == ()
    assert time.process_time() - begin < 5


def test_a_small_image_without_text_has_none(pipeline):
    noise = np.random.default_rng(0).integers(0, 256, (40, 120, 3), np.uint8)
    for image in (np.full((40, 120, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8), noise):
        assert pipeline.run(image).texts == ()


def test_a_line_of_nothing_but_spaces_is_none(pipeline, monkeypatch):
    """Rec reads such where it makes out words, but none of their letters."""
    line = Line("   ", 0.6)
    monkeypatch.setattr(pipeline._recognizer, "recognize", lambda crops, deadline=None: [line] * len(crops))
    assert pipeline.run(cut_out("Garden", 48, 2)).texts == ()


@pytest.mark.parametrize(("height", "texts"), [(20, ("Garden",)), (30, ("Gar",))])
def test_of_a_small_line_the_whole_is_read_where_det_finds_less(pipeline, monkeypatch, height, texts):
    word = cut_out("Garden", 48, 4)
    word = cv2.resize(word, (word.shape[1] * height // word.shape[0], height), interpolation=cv2.INTER_AREA)
    half = Detection(
        np.array([[[0, 0], [word.shape[1] * 0.48, 0], [word.shape[1] * 0.48, height], [0, height]]], np.float32),
        np.ones(1, np.float32),
    )
    monkeypatch.setattr(pipeline._detector, "detect", lambda image, deadline=None: half)
    assert pipeline.run(word).texts == texts
