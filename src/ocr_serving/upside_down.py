"""Pages that lie upside down: each line reads as doubtful nonsense, and turned by half as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ocr_serving.geometry import Image, Quads, side_lengths
from ocr_serving.recognition import Line

_DOUBTFUL = 0.85
"""Lines whose letters score less. Few pages that lie as they should have more of them than others (4 of 40 photos, no
receipt, no document); of those turned by half, nine in ten have."""
_SURE, _GAIN, _LEAST = 0.9, 0.1, 2
"""A line turned by half is believed from this score on, if that is so much more, and it has so many characters."""


def is_likely(lines: Sequence[Line]) -> bool:
    """Whether more of what was read is doubtful than is not, by lines with letters, each as much as it is long."""
    doubtful = sum(len(line.text) for line in lines if 0 < line.letters < _DOUBTFUL)
    return 2 * doubtful > sum(len(line.text) for line in lines if line.letters)


def turned(crops: Sequence[Image]) -> list[Image]:
    """The crops, each turned by half."""
    return [crop[::-1, ::-1] for crop in crops]


def better(lines: Sequence[Line], again: Sequence[Line]) -> tuple[list[Line], bool]:
    """Of each line the reading to be believed, as it lies or turned by half (`again`); and whether the page is turned.

    It is if most lines are that are long enough to tell. Then numbers count as they read that way, too, though 09:00 is
    as good as 00:60.
    """
    pairs = list(zip(lines, again, strict=True))
    surer = [b.letters >= max(_SURE, a.letters + _GAIN) and len(b.text) >= _LEAST for a, b in pairs]
    is_turned = 2 * sum(surer) > sum(max(len(a.text), len(b.text)) >= _LEAST for a, b in pairs)
    if is_turned:
        surer = [b.error is None and b.letters > a.letters - _GAIN for a, b in pairs]
    return [b if sure else a for (a, b), sure in zip(pairs, surer, strict=True)], is_turned


def in_order(quads: Quads, lines: list[Line]) -> tuple[Quads, list[Line]]:
    """The lines of a page that is turned by half, and their quads (n, 4, 2), as they read; columns stay as they are."""
    width, height = side_lengths(quads)
    return (quads, lines) if np.median(width) < np.median(height) else (quads[::-1], lines[::-1])
