"""Pictures of results: what is drawn where."""

import cv2
import numpy as np

from ocr_serving import draw
from ocr_serving.compat.box_ops import GetRotateCropImage

crop = GetRotateCropImage()


def blank(width: int = 200, height: int = 200) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def ink(image: np.ndarray) -> np.ndarray:
    """Where the letters are: dark in all three channels, which the boxes are not."""
    return image.max(axis=2) < 120


def quad(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def test_boxes_on_the_image_and_texts_beside_it():
    picture = draw.page(blank(), quad(20, 50, 180, 80)[None], ["文字 text"])
    assert picture.shape == (200, 400, 3)
    assert not ink(picture[:, :200]).any()
    assert (picture[50, 60:140] == draw.BOX_COLOR).all()
    rows, columns = np.nonzero(ink(picture[:, 200:]))
    assert 50 <= rows.min() < rows.max() <= 80
    assert 20 <= columns.min() < columns.max() <= 180
    assert columns.max() - columns.min() > 60


def test_a_tall_box_is_written_so_that_its_crop_reads_as_a_line():
    tall, wide = quad(80, 20, 110, 180), quad(20, 80, 180, 110)
    vertical = draw.page(blank(), tall[None], ["downwards 向下"])[:, 200:]
    level = draw.page(blank(), wide[None], ["downwards 向下"])[:, 200:]
    turned, straight = crop(vertical, tall), crop(level, wide)
    assert turned.shape == straight.shape
    near = cv2.dilate(ink(straight).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert ink(turned).sum() > 0.7 * ink(straight).sum()
    assert (ink(turned) & near).sum() > 0.95 * ink(turned).sum()


def test_a_text_too_long_for_its_box_stays_inside():
    picture = draw.page(blank(), quad(50, 50, 100, 80)[None], ["长" * 8])[:, 200:]
    _, columns = np.nonzero(ink(picture))
    assert 50 <= columns.min() < columns.max() <= 100


def test_boxes_beyond_the_image_and_empty_texts_are_drawn_as_far_as_they_go():
    quads = np.stack([quad(-50, -50, 20, -20), quad(150, 150, 400, 400), quad(5, 5, 5, 5)])
    picture = draw.page(blank(), quads, ["outside", "half", ""])
    assert picture.shape == (200, 400, 3)
    assert (picture[150, 160:200] == draw.BOX_COLOR).all()
    assert (picture[:140, 30:200] == 255).all()
    assert draw.page(blank(), np.zeros((0, 4, 2), np.float32), []).shape == (200, 400, 3)


def test_a_line_gets_its_text_below():
    picture = draw.line(blank(300, 40), "一行字")
    assert picture.shape == (80, 300, 3)
    assert not ink(picture[:40]).any()
    assert ink(picture[40:]).any()
