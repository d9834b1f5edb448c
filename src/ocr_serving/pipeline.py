"""Detect, crop, recognise: the recipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detector
from ocr_serving.geometry import Image, Quads, crop
from ocr_serving.recognition import Recognizer


@dataclass(frozen=True)
class Page:
    """The text lines of one image, in reading order.

    Attributes:
        quads: float32 (n, 4, 2), pixels of the image, clockwise from top-left.
        texts: n strings.
        scores: float32 (n,), rec scores.
    """

    quads: Quads
    texts: tuple[str, ...]
    scores: NDArray[np.float32]


class Pipeline:
    """OCR of an image with a detector and a recogniser, wherever their models run. Thread-safe."""

    def __init__(self, detector: Detector, recognizer: Recognizer, min_score: float) -> None:
        """
        Args:
            detector: finds the boxes.
            recognizer: reads them.
            min_score: lines with a lower rec score, and lines without text, are dropped.
        """
        self._detector = detector
        self._recognizer = recognizer
        self._min_score = min_score

    def run(self, image: Image, deadline: Deadline | None = None) -> Page:
        """The text of a BGR image, uint8 (h, w, 3); a page without lines where there is none.

        Raises:
            The predictors' errors.
        """
        quads = self._detector.detect(image, deadline).quads
        crops = [crop(image, quad) for quad in quads]
        lines = self._recognizer.recognize(crops, deadline)
        kept = [i for i, line in enumerate(lines) if line.text and line.score >= self._min_score]
        return Page(
            quads[kept],
            tuple(lines[i].text for i in kept),
            np.array([lines[i].score for i in kept], np.float32),
        )
