import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_serving.reading.map_size import input_size, map_size, to_map_size


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((960, 640), (960, 640)),
        ((1074, 600), (960, 544)),  # quirk of the original: 959 by truncation, then 896
        ((1126, 100), (960, 96)),
        ((720, 601), (736, 608)),  # quirk of the original: one block of 32 too few, 672 and 544
        ((65, 40), (64, 32)),  # the same quirk: 32
        ((1, 1), (32, 32)),
        ((5, 5000), (32, 960)),
    ],
)
def test_input_size_is_the_nearest_multiple_of_the_stride(size, expected):
    assert input_size(*size, 960) == expected


@given(st.integers(1, 20000), st.integers(1, 20000), st.integers(32, 4096))
def test_input_size_is_always_one_the_model_takes(width, height, limit):
    for side, original in zip(input_size(width, height, limit), (width, height), strict=True):
        assert side % 32 == 0
        assert 32 <= side <= max(limit, 32) + 16
        assert side <= original + 31


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((900, 2700), (320, 960)),
        ((400, 1440), (256, 960)),  # long, but hardly larger than det's input
        ((640, 16000), (640, 16000)),
        ((15000, 1000), (9600, 640)),
        ((5, 5000), (32, 4992)),
    ],
)
def test_long_images_keep_the_scale_of_a_page(size, expected):
    assert map_size(*size, 960) == expected


@given(st.integers(1, 5000), st.floats(1, 3), st.booleans(), st.integers(32, 2000))
def test_up_to_three_times_as_long_as_broad_an_image_is_seen_whole(short, ratio, upright, limit):
    size = (int(short * ratio), short)
    size = size[::-1] if upright else size
    assert map_size(*size, limit) == input_size(*size, limit)


@pytest.mark.parametrize(
    ("size", "times", "expected"),
    [
        ((640, 480), 1, (960, 736)),
        ((480, 640), 1, (736, 960)),
        ((300, 200), 1, (608, 416)),  # at most twice as large
        ((1240, 1754), 1, (672, 960)),
        ((1240, 1754), 2, (1344, 1920)),
        ((640, 480), 2, (1280, 960)),  # at most twice as large
        ((3000, 2000), 2, (1920, 1280)),
        ((200, 1600), 1, (192, 1600)),  # long ones are not enlarged
        ((1920, 12000), 2, (1280, 8000)),
        ((640, 12000), 2, (640, 12000)),
    ],
)
def test_small_images_are_enlarged_and_a_closer_look_is_twice_as_large(size, times, expected):
    assert map_size(*size, 960, 2.0, times) == expected


def test_thin_strokes_are_not_lost_where_a_picture_is_shrunk_to_less_than_half():
    stripes = np.zeros((2400, 2880, 3), np.uint8)
    stripes[:, ::3] = 255
    shrunk = to_map_size(stripes, 960)
    assert shrunk.shape == (800, 960, 3)
    assert np.ptp(shrunk) <= 1, "a third of each pixel is white"


@pytest.mark.parametrize("shape", [(3003, 4001), (6000, 4000)])
def test_a_large_photo_is_seen_as_the_means_of_its_pixels(shape):
    """Of noise: looking at four pixels of twenty would be off by forty."""
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    seen = to_map_size(photo, 960)
    exact = cv2.resize(photo, seen.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(seen.astype(int) - exact).mean() < 10
