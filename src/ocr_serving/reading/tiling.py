"""Long images cut into overlapping windows, so that a model sees each part at a useful size.

What the model answers for the windows is put together before it is interpreted, along seams in the middle of the
overlaps. So a line of text on a seam is one line, and no box is found twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Window:
    """A part of a length.

    Attributes:
        start, stop: what the model sees.
        first, last: of this, what its answer is taken for; the next window's `first` is this one's `last`.
    """

    start: int
    stop: int
    first: int
    last: int


def windows(length: int, size: int, overlap: int) -> list[Window]:
    """Windows over 0 to `length`, all of the same size, neighbours sharing at least `overlap`.

    Args:
        length: what to cover; up to `size`, one window covers it.
        size: of a window.
        overlap: less than `size`. Half of it is what a model sees, at least, beyond a seam.
    """
    if length <= size:
        return [Window(0, length, 0, length)]
    starts = [*range(0, length - size, size - overlap), length - size]
    seams = [0, *((left + size + right) // 2 for left, right in pairwise(starts)), length]
    return [Window(start, start + size, *kept) for start, kept in zip(starts, pairwise(seams), strict=True)]
