"""Crops -> texts: batches of equal width, the rec model, and CTC decoding.

CTC: Graves et al., Connectionist Temporal Classification, ICML 2006; decoded greedily, as the original does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadUpstream
from ocr_serving.geometry import Image
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE
from ocr_serving.predictor.base import Predictor
from ocr_serving.settings import Settings, usable_cores

INPUT = "x"
PAD = 127
"""Grey beside a line: nearest below 127.5, which normalises to the original's padding of 0.0."""
BLANK = 0
"""Class index of the CTC blank."""
WIDTHS = (
    64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 608, 704, 832, 960, 1120, 1312, 1536, 1792, 2112, 2496, 3200
)  # fmt: skip
"""Input widths in pixels at a height of 48, about a sixth apart. A fixed set, because OpenVINO runs a shape that it has
not seen 40-60 % slower. Wider lines are squeezed into the last."""


@dataclass(frozen=True)
class Line:
    """The text of one crop and its score: the mean probability of the characters kept, 0 without any."""

    text: str
    score: float


class Recognizer:
    """Reads crops with any predictor of a CTC model. Thread-safe."""

    def __init__(self, predictor: Predictor, characters: Sequence[str], height: int, settings: Settings) -> None:
        """
        Args:
            predictor: the rec model.
            characters: class index -> text, the blank at index 0 (ModelDir.characters).
            height: the model's input height in pixels (ModelDir.image_height).
            settings: rec_batch is used.
        """
        self._predictor = predictor
        self._characters = characters
        self._height = height
        self._batch = settings.rec_batch
        self._workers = ThreadPoolExecutor(2 * usable_cores(), thread_name_prefix="rec-batch")

    def recognize(self, crops: Sequence[Image], deadline: Deadline | None = None) -> list[Line]:
        """The text of each crop, uint8 (h, w, 3) BGR of any size, in the crops' order.

        A crop's input width depends on itself alone, so its text does not depend on its neighbours.

        Raises:
            The predictor's errors; BadUpstream if its answer does not fit the model's characters.
        """
        batches = list(self._batches(crops))
        runs = [self._workers.submit(self._run, [crops[i] for i in batch], width, deadline) for width, batch in batches]
        lines: list[Line] = [Line("", 0.0)] * len(crops)
        try:
            for (_, batch), run in zip(batches, runs, strict=True):
                for i, line in zip(batch, run.result(), strict=True):
                    lines[i] = line
        finally:
            for run in runs:
                run.cancel()
        return lines

    def close(self) -> None:
        """Stop the threads; no call may follow."""
        self._workers.shutdown(cancel_futures=True)

    def _batches(self, crops: Sequence[Image]) -> Iterator[tuple[int, list[int]]]:
        """(input width, indices of crops), widest first, in batches of 1, 2, 4, ... up to rec_batch."""
        by_width: dict[int, list[int]] = defaultdict(list)
        for i, image in enumerate(crops):
            by_width[input_width(image.shape[1], image.shape[0], self._height)].append(i)
        for width in sorted(by_width, reverse=True):
            indices = by_width[width]
            while indices:
                size = min(self._batch, 1 << (len(indices).bit_length() - 1))
                yield width, indices[:size]
                indices = indices[size:]

    def _run(self, crops: Sequence[Image], width: int, deadline: Deadline | None) -> list[Line]:
        batch = np.full((len(crops), self._height, width, 3), PAD, np.uint8)
        for row, image in zip(batch, crops, strict=True):
            fit_line(image, row)
        answer = self._predictor.predict({INPUT: batch}, [CTC_INDEX, CTC_SCORE], deadline)
        index, score = answer[CTC_INDEX], answer[CTC_SCORE]
        if index.ndim != 2 or len(index) != len(crops) or score.shape != index.shape:
            raise BadUpstream("The rec model answered something of another shape than its input asks for.")
        if index.min(initial=0) < 0 or index.max(initial=0) >= len(self._characters):
            raise BadUpstream("The rec model answered a character that its dictionary does not hold.")
        return [ctc_decode(i, s, self._characters) for i, s in zip(index, score, strict=True)]


def natural_width(width: int, height: int, target_height: int) -> int:
    """Width in pixels of a crop scaled to the target height, rounded up as in the original."""
    return max(1, -(-target_height * width // height))


def input_width(width: int, height: int, target_height: int) -> int:
    """The least of WIDTHS (scaled to the target height) that a crop of this size fits into, else the last."""
    natural = natural_width(width, height, target_height)
    return next((w for w in WIDTHS if w * target_height // 48 >= natural), WIDTHS[-1]) * target_height // 48


def fit_line(image: Image, out: Image) -> None:
    """Scale a crop, uint8 (h, w, 3), to the height of `out`, uint8 (H, W, 3), and write it at its left edge."""
    height, limit = out.shape[:2]
    width = min(limit, natural_width(image.shape[1], image.shape[0], height))
    out[:, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def ctc_decode(index: NDArray[np.integer], score: NDArray[np.float32], characters: Sequence[str]) -> Line:
    """Greedy CTC: the classes (t,) without blanks and without repeats of the step before, as text."""
    kept = index != BLANK
    kept[1:] &= index[1:] != index[:-1]
    if not kept.any():
        return Line("", 0.0)
    return Line("".join(characters[i] for i in index[kept]), float(score[kept].mean()))
