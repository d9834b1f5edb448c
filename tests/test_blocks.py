"""Pages that are small in a large photo are found, though det sees a block there and no line."""

import numpy as np
import pytest
import zoo_models

from ocr_serving import samples
from ocr_serving.detection import Detector
from ocr_serving.errors import EngineFailed
from ocr_serving.pipeline import Pipeline
from ocr_serving.reading import blocks
from ocr_serving.recognition import Line, Recognizer
from ocr_serving.settings import Settings
from ocr_serving.timings import Timings

RECEIPT = next(sample for sample in samples.render() if sample.name == "imgs/receipt.jpg")
SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)


@pytest.fixture
def pipeline():
    rec = zoo_models.predictor("ocr_rec")
    recognizer = Recognizer(rec, rec.model.characters, rec.model.image_height, Settings())
    return Pipeline(Detector(zoo_models.predictor("ocr_det"), Settings()), recognizer, Settings().rec_min_score)


def photo(*corners):
    """The receipt, so small that det sees no lines, at places (left, top) of a photo of 48 million pixels."""
    picture = np.full((6000, 8000, 3), (110, 125, 135), np.uint8)
    height, width = RECEIPT.image.shape[:2]
    for left, top in corners:
        picture[top : top + height, left : left + width] = RECEIPT.image
    return picture


@pytest.mark.parametrize("corners", [[(2000, 1500)], [(1500, 1700), (5500, 3500)]], ids=["one", "two"])
def test_a_page_that_is_small_in_a_large_photo_is_read(pipeline, corners):
    page = pipeline.run(photo(*corners))
    assert "".join(page.texts).replace(" ", "") == "".join(RECEIPT.texts * len(corners)).replace(" ", "")
    height, width = RECEIPT.image.shape[:2]
    count = len(RECEIPT.texts)
    for i, (left, top) in enumerate(corners):
        middles = page.quads[i * count : (i + 1) * count].mean(axis=1) - [left, top]
        assert ((middles > 0) & (middles < [width, height])).all()


def test_a_block_that_cannot_be_looked_at_costs_no_other_line(pipeline, monkeypatch):
    detect, calls = pipeline._detector.detect, []

    def once(image, deadline=None):
        calls.append(image.shape)
        if len(calls) > 1:
            raise EngineFailed("It broke.")
        return detect(image, deadline)

    monkeypatch.setattr(pipeline._detector, "detect", once)
    assert pipeline.run(photo((2000, 1500))).texts == ()
    assert len(calls) == 2


def test_blocks_show_no_more_than_the_picture_all_together(pipeline, monkeypatch):
    """Lines askew from corner to corner cost a look at all of it each."""
    image, looks = np.zeros((3000, 4000, 3), np.uint8), []
    askew = np.array([[0, 300], [300, 0], [3600, 2600], [3300, 2900]], np.float32)
    monkeypatch.setattr(pipeline, "_read", lambda part, *_: looks.append(part.size) or (askew[None], [Line("", 0.0)]))
    pipeline._read_blocks([0, 1, 2], image, np.stack([askew] * 3), [Line("E", 0.6, 0.6)] * 3, None, Timings())
    assert len(looks) == 1


def test_no_block_is_looked_for_where_det_saw_the_picture_in_its_size(pipeline, monkeypatch):
    detect, calls = pipeline._detector.detect, []
    monkeypatch.setattr(blocks, "find", lambda quads, lines: [0])
    monkeypatch.setattr(pipeline._detector, "detect", lambda *args: calls.append(args) or detect(*args))
    assert pipeline.run(RECEIPT.image).texts
    assert len(calls) == 1


def test_of_many_blocks_the_largest_are_looked_at():
    quads = np.stack([SQUARE * (200 + 10 * i) for i in range(10)])
    assert blocks.find(quads, [Line("", 0.0)] * 10) == [*range(2, 10)]


def test_only_large_boxes_that_are_hard_to_read_may_be_blocks():
    quads = np.stack([SQUARE * size for size in ((900, 300), (900, 300), (900, 60), (300, 300))])
    lines = [Line("E", 0.6, 0.6), Line("EXIT", 0.9, 0.9), Line("", 0.0), Line("", 0.0)]
    assert blocks.find(quads, lines) == [0, 3]


def test_a_block_has_two_lines_or_more():
    inside, outside = SQUARE * 9 + 20, SQUARE * 9 + 200
    quads, lines = np.stack([inside, outside, inside + 30]), [Line("text", 0.9, 0.9)] * 3
    assert blocks.lines_of(SQUARE * 100, quads, lines) == [0, 2]
    assert blocks.lines_of(SQUARE * 100, quads[:2], lines[:2]) == []
