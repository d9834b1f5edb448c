"""Columns of running text, as in a paper or a newspaper: each is read to its end before the next one.

Tables, forms and receipts have gaps that run through their lines, too, but are read line by line. What tells them apart
is that lines of running text wrap: most are as long as their column is wide, in each of the columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WIDE, _ALIKE = 10.0, 2.0
"""Least width of a column, in heights of a line, and how many times as wide the widest one is at most. Cells that are
filled, as with dates or the numbers of accounts, are narrower, or beside narrower ones."""
_GUTTER = 0.5
"""Least width of what is between two columns, in heights of a line; boxes are a little larger than their text."""
_FULL, _SHARE = 0.85, 0.6
"""How much of the column's width a full line takes at least, and how many of the lines are full."""
_ENDS = 0.8
"""Of the column's width, how far a line goes at most that ends a paragraph."""
_LEAST_LINES = 6
"""Of a column."""
_PITCH = 1.6
"""From line to line in a column, in heights; rows of a table stand farther apart."""
_BREAK = 3.0
"""Where nothing stands for so many heights, columns end: what follows is another part of the page."""
_FINE = 8
"""Steps to a height of a line, in which gaps are looked for."""
_TRIES = 4
"""How many lines at the top of what seem to be columns may be none: a table's head, the name of a paper. With more, a
long table takes the time of its square."""

Floats = NDArray[np.floating]


def by_column(
    lines: Sequence[Sequence[int]], left: Floats, right: Floats, y: Floats, height: Floats
) -> list[list[int]]:
    """The lines of a page in the order in which they are read: those of running text column by column.

    Args:
        lines: from top to bottom, of indices of boxes from left to right.
        left, right, y, height: of the n boxes: ends and centre of each, in pixels of the levelled page.
    """
    wide = right - left >= _WIDE * height
    is_start = [np.count_nonzero(wide[line]) > 1 for line in lines]
    if sum(is_start) < _LEAST_LINES:
        return [list(line) for line in lines]
    page = _Page(lines, left, right, y, float(np.median(height)))
    ordered: list[list[int]] = []
    tried: Counter[int] = Counter()
    at = free = given_up = 0  # lines from `free` to `at` are in `ordered` as they are; those to `given_up` will be
    while at < len(lines):
        stop = page.stop(at) if is_start[at] and at >= given_up else at
        columns = page.columns(at, stop) if stop - at >= _LEAST_LINES else []
        if columns:
            start = page.start(free, at, stop)
            if whole := page.columns(start, stop):
                del ordered[len(ordered) - (at - start) :]
            ordered += whole or columns
            at = free = stop
            continue
        tried[stop] += 1
        given_up = max(given_up, stop if tried[stop] == _TRIES else 0)
        ordered.append(list(lines[at]))
        at += 1
    return ordered


class _Page:
    """The lines of a page, and what is free beside their boxes."""

    def __init__(self, lines: Sequence[Sequence[int]], left: Floats, right: Floats, y: Floats, height: float) -> None:
        self._lines, self._left, self._right, self._height = lines, left, right, height
        self._y, self._line_y = y, [float(y[line].mean()) for line in lines]
        self._origin = float(left.min())
        self._steps = int((float(right.max()) - self._origin) * _FINE / height) + 2

    def stop(self, start: int) -> int:
        """The line after the last one down to which the gaps of the first few lines run."""
        taken = np.zeros(self._steps, bool)
        least = 1
        for at in range(start, len(self._lines)):
            if at > start and self._line_y[at] - self._line_y[at - 1] > _BREAK * self._height:
                return at
            taken |= self._taken(at)
            gaps = len(_gaps(taken))
            if gaps < least:
                return at
            if at - start == _LEAST_LINES - 1:
                least = gaps
        return len(self._lines)

    def start(self, least: int, start: int, stop: int) -> int:
        """The first line that belongs to columns from `start` to `stop`, `least` at least: headings, or short lines."""
        taken = np.logical_or.reduce([self._taken(at) for at in range(start, stop)])
        gaps = len(_gaps(taken))
        while start > least and self._line_y[start] - self._line_y[start - 1] <= _PITCH * self._height:
            taken |= self._taken(start - 1)
            if len(_gaps(taken)) < gaps:
                break
            start -= 1
        return start

    def columns(self, start: int, stop: int) -> list[list[int]]:
        """The lines from `start` to `stop` column by column; none if that is no running text."""
        taken = np.logical_or.reduce([self._taken(at) for at in range(start, stop)])
        edges = [self._origin + step * self._height / _FINE for step in _gaps(taken)]
        columns: list[list[list[int]]] = [[] for _ in range(len(edges) + 1)]
        for line in self._lines[start:stop]:
            parts: dict[int, list[int]] = {}
            for box in line:
                parts.setdefault(int(np.searchsorted(edges, self._left[box])), []).append(box)
            for column, part in parts.items():
                columns[column].append(part)
        widths = [self._width(column) for column in columns]
        if max(widths) > _ALIKE * min(widths) or not all(map(self._runs, columns, widths)):
            return []
        if not all(map(self._has_paragraphs, columns, widths)):
            return []
        return [line for column in columns for line in column]

    def _taken(self, line: int) -> NDArray[np.bool_]:
        """Which steps across the page a line's boxes take."""
        taken = np.zeros(self._steps, bool)
        for box in self._lines[line]:
            begin, end = ((x[box] - self._origin) * _FINE / self._height for x in (self._left, self._right))
            taken[int(begin) : int(end) + 1] = True
        return taken

    def _width(self, column: Sequence[Sequence[int]]) -> float:
        return float(max(self._right[line[-1]] for line in column) - min(self._left[line[0]] for line in column))

    def _runs(self, column: Sequence[Sequence[int]], width: float) -> bool:
        """Whether a column holds running text."""
        if len(column) < _LEAST_LINES or width < _WIDE * self._height:
            return False
        if np.median(np.diff([self._y[line[0]] for line in column])) > _PITCH * self._height:
            return False
        full = sum(sum(self._right[box] - self._left[box] for box in line) >= _FULL * width for line in column)
        return bool(full >= _SHARE * len(column))

    def _has_paragraphs(self, column: Sequence[Sequence[int]], width: float) -> bool:
        """Whether a line after the first ends early or is indented.

        Cells of numbers are alike, below their head: in each of the columns, as one may have a gap, or say how many.
        """
        begin = min(self._left[line[0]] for line in column)
        end = begin + _ENDS * width
        return any(self._right[line[-1]] < end or self._left[line[0]] > begin + self._height for line in column[1:])


def _gaps(taken: NDArray[np.bool_]) -> list[int]:
    """The middles of the gaps between what is taken that are wide enough to be gutters."""
    steps = np.flatnonzero(taken)
    wide = np.flatnonzero(np.diff(steps) > _GUTTER * _FINE)
    return [int(steps[i] + steps[i + 1]) // 2 for i in wide]
