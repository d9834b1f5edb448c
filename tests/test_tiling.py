"""Long images: windows cover them, and what is found is as if they had been seen whole."""

from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_serving.detection import Detector
from ocr_serving.reading import tiling
from ocr_serving.settings import Settings


@given(st.integers(1, 5000), st.integers(1, 1000), st.data())
def test_windows_cover_everything_once_with_something_to_see_beyond_each_seam(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    windows = tiling.windows(length, size, overlap)
    assert (windows[0].first, windows[-1].last) == (0, length)
    assert all(window.stop - window.start == min(size, length) for window in windows)
    assert all(0 <= window.start <= window.first < window.last <= window.stop <= length for window in windows)
    for left, right in pairwise(windows):
        assert left.last == right.first
        assert min(left.stop - left.last, right.first - right.start) >= overlap // 2


class Edges:
    """A det model that sees text where the image is white, but nothing within `blind` pixels of its input's long ends,
    as real models are unsure there."""

    def __init__(self, blind=100):
        self._blind = blind
        self.shapes = []

    def predict(self, feed, fetch=(), deadline=None):
        image = feed["x"]
        assert image.flags.c_contiguous
        self.shapes.append(image.shape[1:3])
        logits = np.where(image[:, None, :, :, 0] > 127, 9, -9).astype(np.float32)
        along = logits if image.shape[1] > image.shape[2] else logits.swapaxes(2, 3)
        along[:, :, : self._blind] = along[:, :, -self._blind :] = -9
        return dict.fromkeys(fetch, logits)

    def close(self):
        pass


@pytest.mark.parametrize("upright", [True, False])
def test_a_line_on_a_seam_is_one_box(upright):
    """Lines 20 pixels apart all along: some lie across each seam, and in the overlaps each lies in two windows."""
    image = np.zeros((8000, 640, 3), np.uint8)
    tops = range(150, 7800, 47)
    for top in tops:
        image[top : top + 27, 100:500] = 255
    model = Edges()
    quads = Detector(model, Settings()).detect(image if upright else image.swapaxes(0, 1).copy()).quads
    assert len(quads) == len(tops)
    along = quads[..., 1 if upright else 0]
    np.testing.assert_allclose(np.sort(along.mean(axis=1)), [top + 13 for top in tops], atol=2)
    np.testing.assert_allclose(np.ptp(along, axis=1), np.ptp(along, axis=1)[0], atol=2)
    if upright:
        assert (np.diff(quads[:, 0, 1]) > 0).all(), "in reading order"
    assert set(model.shapes) == {(960, 640) if upright else (640, 960)}, "one shape only"


def test_a_line_through_many_windows_is_one_box():
    image = np.zeros((60, 9000, 3), np.uint8)
    image[20:40, 200:8800] = 255
    [quad] = Detector(Edges(), Settings()).detect(image).quads
    assert quad[0, 0] < 200
    assert quad[1, 0] > 8790


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 200))
def test_any_size_and_limit_is_answered(width, height, limit):
    for least, looks in ((0, 1), (10, 2)):
        model = Edges(blind=1)
        settings = Settings(det_limit_side=limit, det_small_text=least)
        Detector(model, settings).detect(np.zeros((height, width, 3), np.uint8))
        assert 1 <= len(list(groupby(model.shapes))) <= looks, "one shape a look"
