"""Lines longer than rec's longest input: read in overlapping pieces, and the pieces' time steps joined.

What is joined are the classes of the time steps, before CTC collapses them to text: where two pieces agree, either may
go on, in the middle of a character even. Texts could not be joined so: "aa" at a seam may be one letter or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ocr_serving.reading.tiling import Window, windows

OVERLAP = 8
"""Of two pieces, in heights of the line: half a dozen Chinese characters, a dozen Latin ones."""
SHIFTS = (0, -1, 1, -2, 2)
"""Time steps by which a piece may say the same earlier or later: it begins at a whole pixel, not at a whole step, and
is read up to a step late."""

Steps = tuple[NDArray[np.integer], NDArray[np.float32]]
"""Class index (t,) and its probability (t,) of each time step."""


def pieces(width: int, height: int, longest: int, size: int) -> list[Window]:
    """The pieces of a line, all of one width; the line itself where rec reads it in one.

    Args:
        width: of the line in pixels.
        height: of the line in pixels.
        longest: width of a line that is read in one piece, if it is 48 pixels high.
        size: of a piece, likewise.
    """
    if 48 * width <= longest * height:
        return windows(width, width, 0)
    size = max(1, size * height // 48)
    return windows(width, size, min(OVERLAP * height, size // 2))


def join(steps: Sequence[Steps], parts: Sequence[Window], step: float) -> Steps:
    """The time steps of a whole line out of those of its pieces.

    Args:
        steps: of each piece.
        parts: the pieces, in pixels of the line.
        step: pixels of the line to a time step.
    """
    begins, ends = [0], []
    for (a, b), ((left, _), (right, _)) in zip(pairwise(parts), pairwise(steps), strict=True):
        end, begin = _seam(left[: round((a.stop - a.start) / step)], right, round((b.start - a.start) / step))
        ends.append(end)
        begins.append(begin)
    ends.append(len(steps[-1][0]))
    cuts = [slice(begin, end) for begin, end in zip(begins, ends, strict=True)]
    return (
        np.concatenate([index[cut] for (index, _), cut in zip(steps, cuts, strict=True)]),
        np.concatenate([probability[cut] for (_, probability), cut in zip(steps, cuts, strict=True)]),
    )


def _seam(left: NDArray[np.integer], right: NDArray[np.integer], offset: int) -> tuple[int, int]:
    """Where the left piece ends and the right one begins: in the middle of the longest part on which they agree.

    Args:
        left: classes (t,) of the left piece.
        right: classes of the right piece.
        offset: time step of the left piece at which the right one begins.
    """
    margin = 1 + (len(left) - offset) // 4  # near an edge, characters are cut, and read as whatever is left of them
    end = (len(left) + offset) // 2
    longest, begin = 0, end - offset
    for shift in SHIFTS:
        run = 0
        for t in range(offset + margin, len(left) - margin):
            run = run + 1 if left[t] == right[t - offset + shift] else 0
            if run > longest:
                longest, end = run, t + 1 - run // 2
                begin = end - offset + shift
    return end, begin
