"""Pages that lie on their side, and pages of vertical text: read as they are, their lines come in the wrong order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocr_serving.geometry import Image, Quads, is_column, side_lengths

_SHARE = 0.5
"""Of the length of all boxes, how much is in columns on such a page. Drawn pages on their side have 0.57 or more, pages
that lie as they should up to 0.07."""
_LEAST_COLUMNS = 4
"""Fewer beside lines may be a sign or two of a street."""
_KEPT = 0.8
"""Of the columns' length, how much of lines the turned page must have: det finds about as much there."""


def is_likely(quads: Quads) -> bool:
    """Whether most of the text of a page stands in columns, quads (n, 4, 2)."""
    columns, lines = _lengths(quads)
    enough = len(columns) >= _LEAST_COLUMNS or not len(lines)
    return enough and bool(columns.sum() > _SHARE * (columns.sum() + lines.sum()))


def turned(image: Image) -> Image:
    """The page, uint8 (h, w, 3), turned a quarter counter-clockwise, as crops of columns are."""
    return np.ascontiguousarray(np.rot90(image))


def is_better(quads: Quads, of_turned: Quads) -> bool:
    """Whether the columns of a page are lines once it is turned."""
    columns, _ = _lengths(quads)
    _, lines = _lengths(of_turned)
    return bool(lines.sum() >= _KEPT * columns.sum())


def back(quads: Quads, width: int) -> Quads:
    """Quads (n, 4, 2) of a turned page as those of the page, which is so wide; clockwise from its top-left again."""
    x, y = np.moveaxis(quads, -1, 0)
    return np.roll(np.stack([width - 1 - y, x], axis=-1), 1, axis=1)


def _lengths(quads: Quads) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lengths in pixels of the columns (c,) and of all other boxes (n - c,).

    What stands is told by the long side. Corners are ordered from left to right, so of a long box that is a few degrees
    off, the side that counts as its top may be steep.
    """
    width, height = side_lengths(quads)
    short, long = np.minimum(width, height), np.maximum(width, height)
    x, y = np.where(width > height, (quads[:, 1] - quads[:, 0]).T, (quads[:, 3] - quads[:, 0]).T)
    columns = is_column(short, long) & (np.abs(y) > np.abs(x))
    return long[columns], long[~columns]
