"""The size in which det sees an image, which is that of its text map, and the image in that size."""

from __future__ import annotations

import cv2

from ocr_serving.geometry import Image
from ocr_serving.model_dir import DET_STRIDE

LONG_RATIO = 3.0
"""Images more than this many times as long as broad are seen in windows. Up to there, receipts read as well whole."""
LONG_SIDE = 1.5
"""A long image up to this many times the limit is seen whole: little is lost in shrinking it."""
PAGE_RATIO = 1.5
"""Sides of a page of paper, roughly."""

Size = tuple[int, int]
"""(width, height) in pixels."""


def map_size(width: int, height: int, limit: int, enlarged: float = 1.0, times: float = 1) -> Size:
    """The size of the text map of an image: at most `limit` on the long side, and more for long images.

    Of a long image, the short side gets as many pixels as that of a page would, and det sees it in windows.

    Args:
        width: of the image.
        height: of the image.
        limit: of the long side, in pixels.
        enlarged: how many times as large as the image the map is at most; long images are not enlarged.
        times: of a closer look, how many times as large it is as that of a first one.
    """
    long, short = max(width, height), min(width, height)
    if long <= LONG_RATIO * short or long <= LONG_SIDE * limit:
        ratio = min(enlarged, times * limit / long)
    else:
        ratio = min(1.0, times * limit / (PAGE_RATIO * short))
    return _scaled(width, height, ratio, DET_STRIDE)


def input_size(width: int, height: int, limit: int, stride: int = DET_STRIDE) -> Size:
    """The size of an image that is shrunk to at most `limit` on the long side, each the nearest multiple of `stride`.

    The original truncated sizes twice: a long side of 1074 became 959 and then 896, and a side that was no multiple
    lost one block more than needed (720 became 672).
    """
    return _scaled(width, height, min(1.0, limit / max(width, height)), stride)


def nearest_multiple(side: float, stride: int = DET_STRIDE) -> int:
    """The multiple of `stride` next to a side, but not 0."""
    return max(stride, int(side / stride + 0.5) * stride)


def to_map_size(image: Image, limit: int, enlarged: float = 1.0, times: float = 1) -> Image:
    """An image, uint8 (h, w, 3), in the size of its text map: map_size(), which says what the others are.

    Shrunk to half or less, each pixel is the mean of those that it stands for: thin strokes would else fall between
    those that are looked at. Shrunk less, that reads photos worse. What is shrunk to a quarter or less is halved first,
    which OpenCV does many times as fast; an odd last row or column is left out of that.
    """
    size = map_size(image.shape[1], image.shape[0], limit, enlarged, times)
    while _is_times(4, image, size):
        width, height = image.shape[1] // 2, image.shape[0] // 2
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    how = cv2.INTER_AREA if _is_times(2, image, size) else cv2.INTER_LINEAR
    resized: Image = cv2.resize(image, size, interpolation=how)
    return resized


def _scaled(width: int, height: int, ratio: float, stride: int) -> Size:
    return nearest_multiple(width * ratio, stride), nearest_multiple(height * ratio, stride)


def _is_times(factor: int, image: Image, size: Size) -> bool:
    """Whether both sides of an image are at least so many times those of a size."""
    return bool(image.shape[1] >= factor * size[0] and image.shape[0] >= factor * size[1])
