"""How the lines of an image are shared out: in batches that run together, and in portions of batches, one a call."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ocr_serving.settings import Settings

CPU_BATCH_WIDTH = 1024
"""On a CPU, most pixels of width that the crops of a batch have together: with more, layers fall out of the caches, and
cores wait for the one that has the last batch."""
_FEW = 0.25
"""Of the largest portion, up to how much for each core is few."""
_SHARE = 0.8
"""Of what is left to each core, how much a portion is at most, so that the last ones are small."""
_LEAST = 0.05
"""Of the largest portion, how much each but the last is at least: with less, a call costs as much as its inference."""


@dataclass(frozen=True)
class Batch:
    """Crops that are read together.

    Attributes:
        width: of the model's input, in pixels.
        indices: which crops.
    """

    width: int
    indices: list[int]

    @property
    def pixels(self) -> int:
        """Pixels of width that the crops have together."""
        return self.width * len(self.indices)


def batches(widths: Sequence[int], settings: Settings, cores: int) -> Iterator[Batch]:
    """Batches up to what is worth it, out of the crops' input widths.

    On a CPU they have 1, 2, 4, ... crops, and no more than the share of one of the cores: few lines would else leave
    the others idle. Engines for a GPU fill batches up to such numbers.
    """
    by_width: dict[int, list[int]] = defaultdict(list)
    for i, width in enumerate(widths):
        by_width[width].append(i)
    on_cpu = settings.device == "cpu"
    batch_width = min(CPU_BATCH_WIDTH, sum(widths) // cores) if on_cpu else sys.maxsize
    for width, indices in by_width.items():
        most = max(1, min(settings.rec_batch, batch_width // width))
        while indices:
            size = min(most, 1 << (len(indices).bit_length() - 1) if on_cpu else len(indices))
            yield Batch(width, indices[:size])
            indices = indices[size:]


def portions(batches: Iterable[Batch], cores: int, most: Callable[[], float]) -> Iterator[list[Batch]]:
    """Batches of one image in portions for one call each, as few as keep all cores busy, as a call costs.

    Few lines are dealt out evenly: each core reads one portion (longest processing time first: Graham, SIAM Journal on
    Applied Mathematics, 1969). Of many, portions are large at first and then smaller and smaller, so that no core waits
    long for the one that has the last (guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on
    Computers, 1987).

    Args:
        batches: in any order.
        cores: portions that are read at once.
        most: asked for each portion: its most pixels of width; a larger batch is a portion by itself.
    """
    ordered = sorted(batches, key=lambda batch: -batch.pixels)
    left = sum(batch.pixels for batch in ordered)
    if left / cores < _FEW * most():
        yield from filter(None, _dealt_out(ordered, cores))
        return
    portion: list[Batch] = []
    size = 0
    for batch in ordered:
        largest = most()
        if portion and size + batch.pixels > min(largest, max(_SHARE * left / cores, _LEAST * largest)):
            yield portion
            left -= size
            portion, size = [], 0
        portion.append(batch)
        size += batch.pixels
    if portion:
        yield portion


def _dealt_out(batches: Iterable[Batch], cores: int) -> list[list[Batch]]:
    """Each batch, the longest first, to whom has least."""
    hands: list[list[Batch]] = [[] for _ in range(cores)]
    pixels = [0] * cores
    for batch in batches:
        least = pixels.index(min(pixels))
        hands[least].append(batch)
        pixels[least] += batch.pixels
    return hands
