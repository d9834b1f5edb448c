"""Kernels that fill little of their rectangle: bent lines, lines that touch something, and what is no text."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ocr_serving import samples
from ocr_serving.detection import boxes_from_logits
from ocr_serving.logistic import logit
from ocr_serving.reading import kernels
from ocr_serving.settings import Settings

X = np.arange(30, 570)
SURE = 0.95


def text_map(*lines, probability=SURE):
    """Logits of a map 600 wide with lines 14 pixels thick through points (x, y)."""
    mask = np.zeros((300, 600), np.uint8)
    for points in lines:
        cv2.polylines(mask, [np.array(points, np.int32)], False, 1, 14)
    return logit(np.where(mask, np.float32(probability), np.float32(0.01)))


def bent(sag):
    """The middle of a line as on the page of an open book."""
    return np.stack([X, 80 + sag * (1 - ((X - 300) / 270) ** 2)], axis=1)


def share_inside(points, quads):
    quads = [quad.reshape(-1, 1, 2) for quad in quads]
    inside = [any(cv2.pointPolygonTest(quad, (float(x), float(y)), False) >= 0 for quad in quads) for x, y in points]
    return np.mean(inside)


@pytest.mark.parametrize("sag", [0, 25, 60, 120])
def test_a_bent_line_is_found_in_pieces(sag):
    boxes = boxes_from_logits(text_map(bent(sag)), Settings())
    assert share_inside(bent(sag), boxes.quads) > 0.95
    assert len(boxes.quads) == 1 if sag == 0 else 2 <= len(boxes.quads) <= 8
    assert boxes.scores.min() > 0.5


def test_a_line_that_a_slanted_one_touches_is_found():
    line, stamp = [(60, 200), (540, 200)], [(320, 200), (520, 30)]
    boxes = boxes_from_logits(text_map(line, stamp), Settings())
    assert share_inside([(x, 200) for x in range(60, 541, 10)], boxes.quads) > 0.9
    assert share_inside([(320 + 2 * i, 200 - 1.7 * i) for i in range(20, 100)], boxes.quads) > 0.9


def test_a_bent_shape_of_doubtful_pixels_is_no_text():
    assert not len(boxes_from_logits(text_map(bent(60), probability=0.6), Settings()).quads)


def test_holes_are_no_kernels_but_what_stands_in_them_is():
    logits = np.full((200, 400), logit(np.float32(0.01)), np.float32)
    sure = float(logit(np.float32(0.95)))
    for shade, (left, top, right, bottom) in (
        (sure, (10, 10, 390, 190)),
        (-sure, (40, 60, 200, 140)),
        (sure, (44, 64, 196, 136)),
    ):
        logits[top:bottom, left:right] = shade
    boxes = boxes_from_logits(logits, Settings())
    widths = sorted((boxes.quads[:, 1, 0] - boxes.quads[:, 0, 0]).tolist())
    assert len(widths) == 2
    assert widths[0] < 300 < widths[1]


@given(hnp.arrays(np.bool_, st.tuples(st.integers(3, 40), st.integers(3, 40))))
def test_pieces_of_any_shape_lie_in_it(mask):
    logits = logit(np.where(mask, np.float32(SURE), np.float32(0.01)))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        left, top, width, height = cv2.boundingRect(contour)
        for kernel in kernels.pieces(logits, contour, 0.5, 2.0):
            (x, y), sides, _ = kernel.rectangle
            assert (left <= x <= left + width, top <= y <= top + height) == (True, True)
            assert min(sides) >= 2
            assert 0.5 <= kernel.score <= 1


def test_a_page_of_an_open_book_is_read(pipeline):
    [page] = [sample for sample in samples.render() if sample.name == "imgs/document.jpg"]
    height, width = page.image.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    curled = cv2.remap(
        page.image, x, y - 30 * (1 - (2 * x / width - 1) ** 2), cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
    )
    found = pipeline.run(curled).texts
    words = {word for text in page.texts for word in text.split() if len(word) > 3}
    read = "".join("".join(found).split())
    assert len([word for word in words if word in read]) >= 0.8 * len(words)
