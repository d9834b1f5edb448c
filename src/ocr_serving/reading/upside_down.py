"""Lines that lie upside down, on a page or a part of it: they read as doubtful nonsense, and turned by half as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ocr_serving.geometry import Image, Quads, is_column, side_lengths
from ocr_serving.recognition import Line

_DOUBTFUL = 0.9
"""Lines whose letters score less are read turned by half, too: nine in ten that lie upside down, and of those that lie
as they should one in a hundred on receipts, a fifth on photos."""
_MANY, _VERY_DOUBTFUL = 6, 0.8
"""So many lines of a page whose letters score less: some may lie upside down, of which three in four do. Of those that
lie as they should it is one in fifty on receipts; fewer of a page are but the illegible words of a photo."""
_SURE, _GAIN, _LEAST = 0.9, 0.1, 2
"""A line turned by half is believed from this score on, if that is so much more, and it has so many characters."""
_FEWEST = 2
"""Lines that surely lie upside down where others of a page do not; a single one may be chance."""
_NEIGHBOURS = 5
"""Of the lines next to one that tell how they lie, so many say how it does."""


def doubtful(lines: Sequence[Line], quads: Quads) -> list[int]:
    """Indices of the lines that may lie upside down, of boxes (n, 4, 2): those that are doubtful, if many are very
    doubtful, or more doubtful than not, by lines with letters, each as much as it is long; else those that stand.

    A line that lies upside down may read as nothing at all, or as a mark or two. If no line has letters that are
    sure, as where there is but one, those without any are read turned, too.
    """
    if all(line.letters < _DOUBTFUL for line in lines):
        return [i for i, line in enumerate(lines) if line.error is None]
    found = [i for i, line in enumerate(lines) if 0 < line.letters < _DOUBTFUL]
    share = sum(len(lines[i].text) for i in found) / max(1, sum(len(line.text) for line in lines if line.letters))
    if sum(lines[i].letters < _VERY_DOUBTFUL for i in found) >= _MANY or share > 0.5:
        return found
    stands = is_column(*side_lengths(quads)).tolist()
    return [i for i in found if stands[i]]


def turned(crops: Sequence[Image]) -> list[Image]:
    """The crops, each turned by half."""
    return [crop[::-1, ::-1] for crop in crops]


def which(lines: Sequence[Line], again: Mapping[int, Line], quads: Quads) -> NDArray[np.bool_]:
    """Which lines (n,) stand where lines lie upside down: all, if most do that are long enough to tell.

    Else, as where one receipt of several does, it is said by the nearest lines that can tell. Numbers cannot, unless
    they were doubtful: 60 is as good as 09. Words that are doubtful either way speak against it, as those of a script
    that rec does not read: by chance some of them read well turned by half, and the prices beside them are right.

    Args:
        lines: as they were read as they lie.
        again: index -> a line as it was read turned by half; of those that were.
        quads: float32 (n, 4, 2), the lines' boxes.
    """
    surely = np.array([i in again and _is_surely(line, again[i]) for i, line in enumerate(lines)], np.bool_)
    long_enough = sum(max(len(line.text), len(again.get(i, line).text)) >= _LEAST for i, line in enumerate(lines))
    if 2 * np.count_nonzero(surely) > long_enough:
        return np.ones(len(lines), np.bool_)
    if np.count_nonzero(surely) < _FEWEST:
        return np.zeros(len(lines), np.bool_)
    tells = surely | np.array([len(line.text) >= _LEAST and any(map(str.isalpha, line.text)) for line in lines])
    centres = quads.mean(axis=1)
    nearest = [
        np.linalg.norm(centres[tells] - centre, axis=1).argsort(kind="stable")[:_NEIGHBOURS] for centre in centres
    ]
    return np.array([2 * np.count_nonzero(surely[tells][near]) > len(near) for near in nearest], np.bool_)


def better(lines: Sequence[Line], again: Mapping[int, Line], lying: NDArray[np.bool_]) -> list[Line]:
    """Of each line the reading to be believed, as it lies or turned by half (`again`).

    Where lines lie upside down (`lying`), that of numbers counts, too, if it is as good.
    """

    def believed(i: int, line: Line) -> bool:
        if i not in again:
            return False
        if lying[i]:
            return again[i].error is None and again[i].letters > line.letters - _GAIN
        return _is_surely(line, again[i])

    return [again[i] if believed(i, line) else line for i, line in enumerate(lines)]


def in_order(quads: Quads, lines: list[Line]) -> tuple[Quads, list[Line]]:
    """The lines of a page that is turned by half, and their quads (n, 4, 2), as they read; columns stay as they are."""
    width, height = side_lengths(quads)
    return (quads, lines) if np.median(width) < np.median(height) else (quads[::-1], lines[::-1])


def _is_surely(line: Line, again: Line) -> bool:
    """Whether a line lies upside down, by how it was read as it lies and, `again`, turned by half."""
    return again.letters >= max(_SURE, line.letters + _GAIN) and len(again.text) >= _LEAST
