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
    order = np.lexsort((quads[:, 0, 0], quads[:, 0, 1])).tolist()
    corners = quads[:, 0].tolist()
    for i in range(1, len(order)):
        for j in range(i, 0, -1):
            left, right = corners[order[j - 1]], corners[order[j]]
            if abs(right[1] - left[1]) >= LINE_TOLERANCE or right[0] >= left[0]:
                break
            order[j - 1], order[j] = order[j], order[j - 1]
    return np.array(order, np.intp)


def crop(image: Image, quad: NDArray[np.float32]) -> Image:
    """The upright picture of one quad, float32 (4, 2): see crops()."""
    return crops(image, quad[None])[0]


def crops(image: Image, quads: Quads) -> list[Image]:
    """The upright pictures of quads: uint8 (h, w, 3), turned a quarter counter-clockwise where high and narrow.

    Args:
        image: uint8 (h, w, 3).
        quads: float32 (n, 4, 2); left as they are (the original's op moved its caller's boxes).
    """
    # What numpy does for all quads at once takes it ten times as long for each by itself.
    sizes = np.maximum(np.stack(side_lengths(quads), axis=1).astype(int), 1)
    starts = np.maximum(np.floor(quads.min(axis=1)), 0).astype(int)
    stops = np.maximum(np.ceil(quads.max(axis=1)).astype(int), starts + 1)
    moved = quads - starts[:, None].astype(np.float32)
    return [
        _upright(image[top:bottom, left:right], quad, width, height)
        for (left, top), (right, bottom), quad, (width, height) in zip(
            starts.tolist(), stops.tolist(), moved, sizes.tolist(), strict=True
        )
    ]


def _upright(window: Image, quad: NDArray[np.float32], width: int, height: int) -> Image:
    """A quad (4, 2) of a window as a picture of this size, before any turn."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    upright = cv2.warpPerspective(
        window,
        cv2.getPerspectiveTransform(quad, corners),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.rot90(upright) if height >= ROTATE_RATIO * width else upright
