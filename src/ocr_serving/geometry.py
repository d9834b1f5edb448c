"""Quads and crops. A quad is float32 (4, 2): x, y in pixels of the image, clockwise from top-left."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Quads = NDArray[np.float32]
Image = NDArray[np.uint8]

ROTATE_RATIO = 1.5
"""Crops at least this many times as high as wide are turned a quarter, as the original does."""
LINE_TOLERANCE = 10.0
"""Boxes whose tops differ by less than this many pixels stand on one line, as in the original."""


def order_points(points: NDArray[Any]) -> NDArray[np.float32]:
    """The corners (4, 2) clockwise from top-left: the left two by y are tl and bl, the right two tr and br."""
    by_x = sorted(points.tolist(), key=itemgetter(0))
    top_left, bottom_left = sorted(by_x[:2], key=itemgetter(1))
    top_right, bottom_right = sorted(by_x[2:], key=itemgetter(1))
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32)


def side_lengths(quads: Quads) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Length in pixels of the top side (n,) and of the left side (n,) of quads (n, 4, 2)."""
    return np.linalg.norm(quads[:, 0] - quads[:, 1], axis=1), np.linalg.norm(quads[:, 0] - quads[:, 3], axis=1)


def reading_order(quads: Quads) -> NDArray[np.intp]:
    """Indices (n,) that put quads (n, 4, 2) in reading order: lines from top to bottom, boxes from left to right.

    Boxes stand on one line if their tops differ by less than LINE_TOLERANCE from a neighbour's. The original made one
    pass of swaps, which leaves longer lines unsorted; here a box moves left until its place is found.
    """
    order = list(np.lexsort((quads[:, 0, 0], quads[:, 0, 1])))
    for i in range(1, len(order)):
        for j in range(i, 0, -1):
            left, right = quads[order[j - 1], 0], quads[order[j], 0]
            if abs(right[1] - left[1]) >= LINE_TOLERANCE or right[0] >= left[0]:
                break
            order[j - 1], order[j] = order[j], order[j - 1]
    return np.array(order, np.intp)


def crop_size(quad: NDArray[np.float32]) -> tuple[int, int]:
    """Width and height in pixels, at least 1, of the upright picture of one quad (4, 2), before any turn."""
    widths, heights = side_lengths(quad[None])
    return max(1, int(widths[0])), max(1, int(heights[0]))


def crop(image: Image, quad: NDArray[np.float32]) -> Image:
    """The upright picture of a quad: uint8 (h, w, 3), turned a quarter counter-clockwise where it is high and narrow.

    Args:
        image: uint8 (h, w, 3).
        quad: float32 (4, 2); left as it is (the original's op moved its caller's boxes).
    """
    width, height = crop_size(quad)
    left, top = np.floor(quad.min(axis=0)).astype(int)
    right, bottom = np.ceil(quad.max(axis=0)).astype(int)
    left, top = max(left, 0), max(top, 0)
    window = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(quad - np.array([left, top], np.float32), corners)
    upright = cv2.warpPerspective(
        window, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.rot90(upright) if height >= ROTATE_RATIO * width else upright
