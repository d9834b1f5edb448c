"""Quads and crops. A quad is float32 (4, 2): x, y in pixels of the image, clockwise from top-left."""

from __future__ import annotations

import math
from operator import itemgetter
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving.reading import columns

Quads = NDArray[np.float32]
Image = NDArray[np.uint8]

ROTATE_RATIO = 1.5
"""Crops at least this many times as high as wide are turned a quarter, as the original does."""
MOST_ENLARGED = 8.0
"""How many times crops are enlarged at most: text of a sixth of rec's height cannot be read."""
_ROOM = 64e6
"""Pixels of all crops of a page together, up to which they are enlarged: three bytes each."""
_LONG = 2.0
"""Boxes at least this many times as broad as high show how a page is tilted."""
_ALIKE, _LEAST_LONG = 0.3, 6
"""Long boxes whose slopes differ from most by less show how lines are bent, if there are so many."""
_DOUBT = 0.1
"""How much a page is taken for flat, in long boxes that say so: boxes that stand one below the other cannot tell."""
_SPECK = 0.5
"""A box of less than this share of its neighbour's height says nothing of where a line goes on."""


def order_points(points: NDArray[Any]) -> NDArray[np.float32]:
    """The corners (4, 2) clockwise from top-left: the left two by y are tl and bl, the right two tr and br."""
    by_x = sorted(points.tolist(), key=itemgetter(0))
    top_left, bottom_left = sorted(by_x[:2], key=itemgetter(1))
    top_right, bottom_right = sorted(by_x[2:], key=itemgetter(1))
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32)


def corners(width: int, height: int) -> NDArray[np.float32]:
    """The corners (4, 2) of a picture of this size."""
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)


def side_lengths(quads: Quads) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Length in pixels of the top side (n,) and of the left side (n,) of quads (n, 4, 2)."""
    return np.linalg.norm(quads[:, 0] - quads[:, 1], axis=1), np.linalg.norm(quads[:, 0] - quads[:, 3], axis=1)


def reading_order(quads: Quads) -> NDArray[np.intp]:
    """Indices (n,) that put quads (n, 4, 2) in reading order: lines from top to bottom, boxes from left to right.

    A box stands on the line whose last box, to its left, differs least from it in height, if their centres differ by
    less than half of the lower box's height, once the page is levelled. The original took 10 pixels between their tops;
    but a picture's size and tilt should not matter, nor whether its lines are bent or run together in the distance.
    """
    width, height = side_lengths(quads)
    centres = _levelled(quads, width, height)
    ys, near = centres[:, 1], height / 2
    lines: list[list[int]] = []
    last = np.empty(len(quads), np.intp)  # box of each line
    for i in np.argsort(centres[:, 0], kind="stable").tolist():
        ends = last[: len(lines)]
        apart = np.abs(ys[ends] - ys[i])
        apart[apart >= np.minimum(near[ends], near[i])] = np.inf
        line = int(apart.argmin()) if np.isfinite(apart).any() else len(lines)
        if line == len(lines):
            lines.append([])
            last[line] = i
        lines[line].append(i)
        if near[i] > _SPECK * near[last[line]]:
            last[line] = i
    lines.sort(key=lambda line: float(ys[line].mean()))
    lines = columns.by_column(lines, centres[:, 0] - width / 2, centres[:, 0] + width / 2, ys, height)
    return np.array([i for line in lines for i in line], np.intp)


def _levelled(quads: Quads, width: NDArray[np.float32], height: NDArray[np.float32]) -> NDArray[np.float32]:
    """The centres (n, 2) of quads (n, 4, 2) on the page made level.

    It is turned by the tilt of most long boxes. Where there are many, what is left of their slopes shows how lines are
    bent and run together: as a linear function of the place, fitted by least squares. Along curves of such a slope the
    centres are moved up or down.
    """
    along = quads[:, 1] - quads[:, 0]
    is_long = width >= _LONG * height
    tilt = float(np.median(np.arctan2(along[is_long, 1], along[is_long, 0]))) if is_long.any() else 0.0
    level = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]], np.float32)
    centres: NDArray[np.float32] = quads.mean(axis=1) @ level
    along = along @ level
    alike = is_long & (np.abs(along[:, 1]) < _ALIKE * along[:, 0])
    if np.count_nonzero(alike) < _LEAST_LONG:
        return centres
    half = max(1.0, float(np.ptp(centres, axis=0).max()) / 2)
    x, y = ((centres - centres.mean(axis=0)) / half).T
    weights = along[alike, 0] / along[alike, 0].mean()  # long boxes tell more
    places = np.stack([np.ones_like(x), x, y], axis=1)[alike] * weights[:, None]
    slopes = along[alike, 1] / along[alike, 0] * weights
    doubt = np.diag(np.array([0, _DOUBT, _DOUBT], np.float32))
    slope, bend, spread = np.linalg.solve(places.T @ places + doubt, places.T @ slopes)
    centres[:, 1] -= half * x * (slope + bend * x / 2 + spread * y)
    return centres


def is_column(width: Any, height: Any) -> Any:
    """Whether a box of these sides is high and narrow, so that its crop is turned; of numbers, or of arrays of them."""
    return height >= ROTATE_RATIO * width


def crops(image: Image, quads: Quads, least_height: int = 1) -> list[Image]:
    """The upright pictures of quads: uint8 (h, w, 3), turned a quarter counter-clockwise where high and narrow.

    Args:
        image: uint8 (h, w, 3).
        quads: float32 (n, 4, 2); left as they are (the original's op moved its caller's boxes).
        least_height: in pixels, after the turn; lower ones are cut out enlarged to this, but at most MOST_ENLARGED
            times, and less where so many would fill the memory. Cut out as they are and enlarged then, small letters
            are smoothed twice.
    """
    # What numpy does for all quads at once takes it ten times as long for each by itself.
    sides = np.stack(side_lengths(quads), axis=1)
    heights = np.where(is_column(*sides.T), *sides.T)
    enlarged = np.clip(least_height / np.maximum(heights, 1), 1, MOST_ENLARGED)[:, None]
    excess = max(1.0, float((sides.prod(axis=1, keepdims=True) * enlarged**2).sum()) / _ROOM)
    enlarged = np.maximum(enlarged / math.sqrt(excess), 1)
    sizes = np.maximum(np.where(enlarged > 1, np.rint(sides * enlarged), sides).astype(int), 1)
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
    upright = cv2.warpPerspective(
        window,
        cv2.getPerspectiveTransform(quad, corners(width, height)),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.rot90(upright) if is_column(width, height) else upright
