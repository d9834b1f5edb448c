"""Lines with a leader, as "Coffee ..... 3.50", or with a wide gap: where their text stands, so that rec reads it alone.

In a line that is mostly dots, rec misreads the letters, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ocr_serving.reading.long_lines import Steps

CHARACTERS = frozenset(" .·…‥・•-—_")
"""What leaders are read as."""
GAP = 4.0
"""Parts of a line stand so far apart at least, in heights of the line; between 2.5 and 6, the number matters little."""
MARGIN = 0.6
"""From the middle of a part's first or last character to its edge, in heights of the line: a Chinese character, which
is as wide as high, is whole, and little of a leader comes along."""


def text_parts(index: NDArray[np.integer], is_text: NDArray[np.bool_], width: int, height: int) -> list[slice]:
    """The parts of a line that hold text, in pixels of the line; none where it has no text.

    Args:
        index: (t,), the line's best class of each time step.
        is_text: (classes,), whether a class is a character that leaders are not made of.
        width: of the line in pixels.
        height: of the line in pixels.
    """
    steps = np.flatnonzero(is_text[index])
    if not len(steps):
        return []
    middles = (steps + 0.5) * width / len(index)
    wide = np.flatnonzero(np.diff(middles) > GAP * height)
    begins, ends = middles[[0, *(wide + 1)]] - MARGIN * height, middles[[*wide, -1]] + MARGIN * height
    return [slice(max(0, int(begin)), min(width, round(end))) for begin, end in zip(begins, ends, strict=True)]


def join(steps: Sequence[Steps], between: Steps) -> Steps:
    """The time steps of a line out of those of its parts.

    Args:
        steps: of each part.
        between: what stands between two of them.
    """
    row = [steps[0]]
    for part in steps[1:]:
        row += between, part
    return np.concatenate([index for index, _ in row]), np.concatenate([probability for _, probability in row])
