"""Pages that lie upside down: each line reads as doubtful nonsense, and turned by half as text."""

from __future__ import annotations

from collections.abc import Sequence

from ocr_serving.geometry import Image
from ocr_serving.recognition import Line

_DOUBTFUL = 0.85
"""Lines whose letters score less. Few pages that lie as they should have more of them than others (4 of 40 photos, no
receipt, no document); of those turned by half, nine in ten have."""
_SURE, _GAIN, _LEAST = 0.9, 0.1, 2
"""A line turned by half is believed from this score on, if that is so much more, and it has so many characters."""


def is_likely(lines: Sequence[Line]) -> bool:
    """Whether more of the lines with letters are doubtful than are not."""
    scores = [line.letters for line in lines if line.letters]
    return 2 * sum(score < _DOUBTFUL for score in scores) > len(scores)


def turned(crops: Sequence[Image]) -> list[Image]:
    """The crops, each turned by half."""
    return [crop[::-1, ::-1] for crop in crops]


def better(lines: Sequence[Line], of_turned: Sequence[Line]) -> tuple[list[Line], bool]:
    """The readings to be believed, and whether most are those of the lines turned by half: then the page lies so.

    There a number counts as it reads on the page, though 09:00 is as good as 00:60.
    """
    surer = [
        turned.letters >= max(_SURE, line.letters + _GAIN) and len(turned.text) >= _LEAST
        for line, turned in zip(lines, of_turned, strict=True)
    ]
    is_turned = 2 * sum(surer) > len(lines)
    if is_turned:
        surer = [
            turned.error is None and turned.letters > line.letters - _GAIN
            for line, turned in zip(lines, of_turned, strict=True)
        ]
    chosen = [turned if sure else line for line, turned, sure in zip(lines, of_turned, surer, strict=True)]
    return chosen, is_turned
