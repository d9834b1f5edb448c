"""Boxes that are no lines: of a receipt that is small in a large photo, det sees one block, which reads as nothing."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving.geometry import Image, Quads, side_lengths
from ocr_serving.recognition import Line

SHRUNK = 0.5
"""Det must have seen a picture at this scale or smaller: there may then be lines in a block that it could not see."""
_DOUBTFUL = 0.85
"""Letters of what is read of a block score less."""
_LEAST_SIDE = 96.0
"""Of a block, in pixels of the picture: a few lines that can be read."""
_MOST = 8
"""Blocks of a picture that are looked at, the largest: each takes a look of det."""
_LEAST_LINES = 2
"""Fewer are no block but a line that is hard to read."""


def find(quads: Quads, lines: Sequence[Line]) -> list[int]:
    """Indices of the boxes, quads (n, 4, 2) in pixels of the picture, that may be blocks of lines."""
    sides = np.stack(side_lengths(quads), axis=1)
    large = np.argsort(-sides.prod(axis=1), kind="stable").tolist()
    blocks = [i for i in large if lines[i].letters < _DOUBTFUL and sides[i].min() >= _LEAST_SIDE]
    return sorted(blocks[:_MOST])


def cut_out(image: Image, quad: NDArray[np.float32]) -> tuple[Image, NDArray[np.float32]]:
    """The part of a picture, uint8 (h, w, 3), that a block (4, 2) lies in, and where that begins (x, y)."""
    left, top = np.maximum(np.floor(quad.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.ceil(quad.max(axis=0)).astype(int).tolist()
    return np.ascontiguousarray(image[top : bottom + 1, left : right + 1]), np.array([left, top], np.float32)


def lines_of(block: NDArray[np.float32], quads: Quads, lines: Sequence[Line]) -> list[int]:
    """Indices of the lines with text whose boxes, quads (n, 4, 2), stand in a block (4, 2); none where it is no block.

    What else a cut-out shows is read with the picture.
    """
    middles = quads.mean(axis=1).tolist()
    inside = [
        i
        for i, (middle, line) in enumerate(zip(middles, lines, strict=True))
        if line.text and cv2.pointPolygonTest(block, middle, measureDist=False) >= 0
    ]
    return inside if len(inside) >= _LEAST_LINES else []
