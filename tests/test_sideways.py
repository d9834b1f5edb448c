"""Pages on their side: when they are turned, and where their boxes lie then."""

import cv2
import numpy as np
import pytest

from ocr_serving.detection import Detection
from ocr_serving.errors import DeadlineExceeded, LimitExceeded
from ocr_serving.geometry import corners, order_points
from ocr_serving.pipeline import Pipeline
from ocr_serving.reading import sideways
from ocr_serving.recognition import Line


def boxes(*sizes):
    """Quads of these widths and heights, side by side."""
    found, left = [], 0
    for width, height in sizes:
        found.append(corners(width, height))
        found[-1][:, 0] += left
        left += width + 5
    return np.array(found, np.float32).reshape(-1, 4, 2)


@pytest.mark.parametrize(
    ("quads", "likely"),
    [
        (boxes(), False),
        (boxes(*[(10, 100)] * 4), True),
        (boxes(*[(10, 100)] * 3), True),
        (boxes(*[(10, 100)] * 3, (30, 10)), False),
        (boxes(*[(10, 100)] * 4, (300, 10)), True),
        (boxes(*[(10, 100)] * 4, (500, 10)), False),
        (boxes(*[(10, 14)] * 9), False),
    ],
)
def test_pages_of_mostly_columns_are_turned(quads, likely):
    assert sideways.is_likely(quads) == likely


@pytest.mark.parametrize("degrees", [50, 80, 86, 90, 94, 100, 130])
@pytest.mark.parametrize("lying", [False, True], ids=["standing", "lying"])
def test_what_stands_is_told_by_its_long_side_however_the_page_is_tilted(degrees, lying):
    lines = [order_points(cv2.boxPoints(((200 + 30 * i, 300), (400, 20), degrees - 90 * lying))) for i in range(5)]
    assert sideways.is_likely(np.array(lines)) == (not lying)


def test_boxes_of_a_turned_page_lie_where_they_lay():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    turned = sideways.turned(image)
    quads = np.array([[[5, 10], [25, 10], [25, 20], [5, 20]]], np.float32)
    back = sideways.back(quads, image.shape[1])
    pixels = [image[int(y), int(x)].tolist() for x, y in back[0]]
    assert pixels == [turned[int(y), int(x)].tolist() for x, y in np.roll(quads[0], 1, axis=0)]
    assert back[0].tolist() == [[39, 5], [49, 5], [49, 25], [39, 25]], "clockwise from top-left"


class Columns:
    """A detector that sees columns, and of the turned page what it is told to."""

    def __init__(self, of_turned):
        self.of_turned = of_turned

    def detect(self, image, deadline=None):
        found = boxes(*[(10, 100)] * 5) if image.shape[0] == 120 else self.of_turned()
        return Detection(found, np.ones(len(found), np.float32))


class Reader:
    height = 48

    def recognize(self, crops, deadline=None):
        return [Line(f"{crop.shape[1]}", 0.9, 0.9) for crop in crops]


def fail(error):
    raise error("It broke.")


@pytest.mark.parametrize(
    "of_turned",
    [lambda: boxes(), lambda: boxes((300, 10)), lambda: fail(DeadlineExceeded), lambda: fail(LimitExceeded)],
    ids=["nothing", "less", "too late", "too many"],
)
def test_a_page_that_shows_less_when_turned_is_answered_as_it_lies(of_turned):
    page = Pipeline(Columns(of_turned), Reader(), 0.5).run(np.zeros((120, 200, 3), np.uint8))
    assert page.quads.tolist() == boxes(*[(10, 100)] * 5).tolist()


def test_a_page_that_shows_lines_when_turned_is_answered_with_its_own_boxes():
    rows = [boxes((100, 10)) + np.array([0, 20 * i], np.float32) for i in range(5)]
    wide = Columns(lambda: np.concatenate(rows))
    page = Pipeline(wide, Reader(), 0.5).run(np.zeros((120, 200, 3), np.uint8))
    assert page.quads[0].tolist() == [[189, 0], [199, 0], [199, 100], [189, 100]]
    assert len(page.quads) == 5
