"""Detect, crop, recognise: the recipe."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ocr_serving import memory
from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detector, is_cut_out, is_small_line
from ocr_serving.errors import (
    BadUpstream,
    DeadlineExceeded,
    EngineFailed,
    LimitExceeded,
    OcrServingError,
    Overloaded,
    UpstreamUnavailable,
)
from ocr_serving.geometry import Image, Quads, corners, crops
from ocr_serving.reading import blocks, sideways, upside_down
from ocr_serving.recognition import Line, Recognizer
from ocr_serving.timings import Timings

logger = logging.getLogger(__name__)

WHOLE_SCORE = 0.8
"""Least rec score of what was cut out of a picture, if det found no text in it: its letters may fill it, so it is read
as one line."""

SURE_WHOLE_SCORE = 0.9
"""The same of a line that is small, if det found less of it."""

_NOT_AGAIN = (EngineFailed, BadUpstream, DeadlineExceeded, LimitExceeded, Overloaded, UpstreamUnavailable)
"""Errors of a second look or reading that cost no page its first."""


@dataclass(frozen=True)
class Unread:
    """A box whose text could not be read.

    Attributes:
        quad: float32 (4, 2), as in Page.
        error: why.
    """

    quad: NDArray[np.float32]
    error: OcrServingError


@dataclass(frozen=True)
class Page:
    """The text lines of one image, in reading order.

    Attributes:
        quads: float32 (n, 4, 2), pixels of the image, clockwise from top-left.
        lines: n of them.
        unread: further boxes, on which the rec model failed.
    """

    quads: Quads
    lines: tuple[Line, ...]
    unread: tuple[Unread, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The lines' texts."""
        return tuple(line.text for line in self.lines)

    @property
    def scores(self) -> NDArray[np.float32]:
        """The lines' rec scores, float32 (n,)."""
        return np.array([line.score for line in self.lines], np.float32)


class Pipeline:
    """OCR of an image with a detector and a recogniser, wherever their models run. Thread-safe."""

    def __init__(self, detector: Detector, recognizer: Recognizer, min_score: float) -> None:
        """
        Args:
            detector: finds the boxes.
            recognizer: reads them.
            min_score: lines with a lower rec score, and lines without text but spaces, are dropped.
        """
        self._detector = detector
        self._recognizer = recognizer
        self._min_score = min_score

    @memory.needed()
    def run(self, image: Image, deadline: Deadline | None = None, timings: Timings | None = None) -> Page:
        """The text of a BGR image, uint8 (h, w, 3); a page without lines where there is none.

        Args:
            image: what to read.
            deadline: when to give up.
            timings: is told how long the stages took.

        Raises:
            The predictors' errors; Overloaded where there is no memory.
        """
        timings = timings or Timings()
        quads, lines = self._read(image, deadline, timings)
        likely = blocks.find(quads, lines)
        if likely and self._detector.scale(image) <= blocks.SHRUNK:
            quads, lines = self._read_blocks(likely, image, quads, lines, deadline, timings)
        kept = [i for i, line in enumerate(lines) if line.text.strip()]
        return Page(
            quads[kept],
            tuple(lines[i] for i in kept),
            tuple(Unread(quad, line.error) for quad, line in zip(quads, lines, strict=True) if line.error is not None),
        )

    def _read(self, image: Image, deadline: Deadline | None, timings: Timings) -> tuple[Quads, list[Line]]:
        """The boxes of an image, in reading order, and what was read of each; lines of too low a score have no text."""
        with timings.stage("det"):
            seen, quads = self._detect(image, deadline)
        whole = not len(quads) and is_cut_out(image)
        if whole:
            quads = corners(image.shape[1], image.shape[0])[None]
        with timings.stage("crop"):
            pictures = crops(seen, quads, self._recognizer.height)
        with timings.stage("rec"):
            lines = self._recognizer.recognize(pictures, deadline)
            quads, lines = self._read_turned(quads, lines, pictures, deadline)
            if len(quads) and not whole and seen is image and is_small_line(image):
                quads, lines = self._or_whole(image, quads, lines, deadline)
        if seen is not image:
            quads = sideways.back(quads, image.shape[1])
        least = max(self._min_score, WHOLE_SCORE) if whole else self._min_score
        return quads, [line if line.score >= least else replace(line, text="") for line in lines]

    def _or_whole(
        self, image: Image, quads: Quads, lines: list[Line], deadline: Deadline | None
    ) -> tuple[Quads, list[Line]]:
        """The line that was cut out, read as a whole if that is sure and has more letters than what det found of it."""
        try:
            line = self._recognizer.recognize([image], deadline)[0]
        except _NOT_AGAIN as error:
            logger.info("A line was not read as a whole, too: %s", error)
            return quads, lines
        found = sum(_letters(part) for part in lines if part.score >= self._min_score)
        if line.score < SURE_WHOLE_SCORE or _letters(line) <= found:
            return quads, lines
        return corners(image.shape[1], image.shape[0])[None], [line]

    def _read_blocks(
        self,
        likely: list[int],
        image: Image,
        quads: Quads,
        lines: list[Line],
        deadline: Deadline | None,
        timings: Timings,
    ) -> tuple[Quads, list[Line]]:
        """The boxes and lines of an image, those that turn out to be blocks replaced by the lines in them."""
        found = {i: (quads[i : i + 1], [line]) for i, line in enumerate(lines)}
        room = image.size  # cut-outs of long lines that lie askew may show all of it, each
        for i in likely:
            part, start = blocks.cut_out(image, quads[i])
            if part.size > room:
                continue
            room -= part.size
            try:
                inner, read = self._read(part, deadline, timings)
            except _NOT_AGAIN as error:
                logger.info("A block was not looked at: %s", error)
                continue
            inside = blocks.lines_of(quads[i], inner + start, read)
            if inside:
                found[i] = (inner[inside] + start, [read[k] for k in inside])
        return np.concatenate([boxes for boxes, _ in found.values()]), [x for _, read in found.values() for x in read]

    def _detect(self, image: Image, deadline: Deadline | None) -> tuple[Image, Quads]:
        """The page, turned where it lies on its side, and its boxes in reading order."""
        quads = self._detector.detect(image, deadline).quads
        if sideways.is_likely(quads):
            turned = sideways.turned(image)
            try:
                again = self._detector.detect(turned, deadline).quads
            except _NOT_AGAIN as error:
                logger.info("A page was not seen on its side, too: %s", error)
            else:
                if sideways.is_better(quads, again):
                    return turned, again
        return image, quads

    def _read_turned(
        self, quads: Quads, lines: list[Line], pictures: list[Image], deadline: Deadline | None
    ) -> tuple[Quads, list[Line]]:
        """The boxes and lines of a page, of which some or all may lie upside down, as they are best read.

        The doubtful ones are read turned by half, and then the others where those show that lines lie upside down.
        What cannot be read again stays as it was read.
        """
        again: dict[int, Line] = {}
        lying = np.zeros(len(lines), np.bool_)
        try:
            again |= self._turned(upside_down.doubtful(lines, quads), pictures, deadline)
            lying = upside_down.which(lines, again, quads)
            again |= self._turned([i for i in np.flatnonzero(lying).tolist() if i not in again], pictures, deadline)
        except _NOT_AGAIN as error:
            logger.info("Lines were not read upside down, too: %s", error)
        lines = upside_down.better(lines, again, lying)
        return upside_down.in_order(quads, lines) if 2 * np.count_nonzero(lying) > len(lying) else (quads, lines)

    def _turned(self, indices: list[int], pictures: list[Image], deadline: Deadline | None) -> dict[int, Line]:
        """Of these lines, index -> its reading turned by half."""
        if not indices:
            return {}
        read = self._recognizer.recognize(upside_down.turned([pictures[i] for i in indices]), deadline)
        return dict(zip(indices, read, strict=True))


def _letters(line: Line) -> int:
    """How many letters and digits a line has."""
    return sum(map(str.isalnum, line.text))
