"""The kernels of a text map: how sure they are, and those that are bent or grown together, cut into straight pieces.

A line that is bent as on the page of an open book, or that touches a stamp, is one kernel that fills little of its
rectangle, so it scores too little for a box, though all of it is text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving.logistic import sigmoid

_DENSE = 0.7
"""Mean probability inside the contour of a kernel that is worth cutting: it is text, though its rectangle is not."""
_CUTS = 5
"""How often a kernel and its pieces are halved at most: a line bent like an open book's takes three."""
_DENT = 2.0
"""How many times as long the way along the edge must be as the cut: what a cut takes off is no mere corner."""
_LEAST_POINTS = 4
"""Of a contour's edge, between the ends of a cut and in a piece."""

Contour = NDArray[np.int32]
"""Points (n, 1, 2), pixels of the map."""
Rectangle = tuple[Sequence[float], Sequence[float], float]
"""Centre (x, y), sides and angle, as cv2.minAreaRect gives them."""


class Kernel(NamedTuple):
    """A straight one.

    Attributes:
        rectangle: the smallest around it.
        score: mean probability inside the rectangle.
    """

    rectangle: Rectangle
    score: float


def outlines(bitmap: NDArray[np.uint8]) -> list[Contour]:
    """The contours of the kernels in a map, uint8 (h, w), of 0 and 255.

    The edge of a hole is none, which the original takes for one: a large letter was read twice, or a stroke beside it
    as a letter. A kernel that stands in a hole counts.
    """
    contours, hierarchy = cv2.findContours(bitmap, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if hierarchy is None:
        return []
    parents = hierarchy[0, :, 3].tolist()
    return [contour for contour, parent in zip(contours, parents, strict=True) if parent < 0]


def scored(logits: NDArray[np.float32], rectangle: Rectangle) -> Kernel:
    """The kernel in a rectangle of a text map, float32 (h, w).

    For its score, the corners are cut to whole pixels, as in the original.
    """
    quad = cv2.boxPoints(rectangle)
    height, width = logits.shape
    xs, ys = quad.T.tolist()  # four numbers each: Python is ten times as fast as numpy there
    left, right = (min(max(x, 0), width - 1) for x in (math.floor(min(xs)), math.ceil(max(xs))))
    top, bottom = (min(max(y, 0), height - 1) for y in (math.floor(min(ys)), math.ceil(max(ys))))
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(quad - (left, top)).astype(np.int32)], 1)
    probability = sigmoid(logits[top : bottom + 1, left : right + 1])
    return Kernel(rectangle, float(cv2.mean(probability, mask)[0]))


def pieces(logits: NDArray[np.float32], contour: Contour, least_score: float, min_size: float) -> list[Kernel]:
    """The straight pieces of a kernel that does not score enough as a whole; none where it is no text.

    Args:
        logits: the text map, float32 (h, w).
        contour: of the kernel.
        least_score: of a piece.
        min_size: least shorter side in pixels; smaller pieces are noise.
    """
    if _contour_score(logits, contour) < _DENSE:
        return []
    found: list[Kernel] = []
    uncut = [contour]
    for _ in range(_CUTS):
        halves, uncut = [half for piece in uncut for half in _halves(piece)], []
        for half in halves:
            rectangle = cv2.minAreaRect(half)
            if min(rectangle[1]) < min_size:
                continue
            kernel = scored(logits, rectangle)
            if kernel.score >= least_score:
                found.append(kernel)
            else:
                uncut.append(half)
    return found


def _contour_score(logits: NDArray[np.float32], contour: Contour) -> float:
    """Mean probability inside a contour."""
    left, top, width, height = cv2.boundingRect(contour)
    probability = sigmoid(logits[top : top + height, left : left + width])
    return float(cv2.mean(probability, _filled(contour, 0))[0])


def _halves(contour: Contour) -> list[Contour]:
    """The two pieces of a contour that is cut at its deepest dent, to the nearest point across; none if it has none."""
    edge = _every_point(contour)
    dent = _deepest_dent(edge)
    if dent is None:
        return []
    points = edge.reshape(-1, 2).astype(np.float32)
    distance = np.hypot(*(points - points[dent]).T)
    along = np.abs(np.arange(len(points)) - dent)
    along = np.minimum(along, len(points) - along)
    across = (along >= _LEAST_POINTS) & (along > _DENT * distance)
    if not across.any():
        return []
    first, last = sorted((dent, int(np.where(across, distance, np.inf).argmin())))
    return [edge[first : last + 1], np.concatenate([edge[last:], edge[: first + 1]])]


def _every_point(contour: Contour) -> Contour:
    """The outline of what a contour encloses, with all its points."""
    left, top, *_ = cv2.boundingRect(contour)
    outlines, _ = cv2.findContours(_filled(contour, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline: Contour = max(outlines, key=len) + np.array([left - 1, top - 1], np.int32)
    return outline


def _deepest_dent(edge: Contour) -> int | None:
    """Index of the point that lies farthest inside the convex hull."""
    if len(edge) < 2 * _LEAST_POINTS:
        return None
    try:
        dents = cv2.convexityDefects(edge, cv2.convexHull(edge, returnPoints=False))
    except cv2.error:  # it touches itself
        return None
    if dents is None:
        return None
    _, _, farthest, depth = dents.reshape(-1, 4).T
    return int(farthest[depth.argmax()])


def _filled(contour: Contour, border: int) -> NDArray[np.uint8]:
    """What a contour encloses, 1 in uint8 as large as its bounding rectangle, with a border of zeros around."""
    left, top, width, height = cv2.boundingRect(contour)
    mask = np.zeros((height + 2 * border, width + 2 * border), np.uint8)
    cv2.drawContours(mask, [contour - (left - border, top - border)], -1, 1, cv2.FILLED)
    return mask
