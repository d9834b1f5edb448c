"""Image -> quads: resize, the det model, and DB post-processing of its probability map.

DB: Liao et al., Real-time Scene Text Detection with Differentiable Binarization, AAAI 2020. The model predicts a shrunk
kernel of each text; its contour becomes a rectangle, which is then widened back (unclip).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving import memory
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadUpstream, LimitExceeded
from ocr_serving.geometry import Image, Quads, order_points, reading_order, side_lengths
from ocr_serving.logistic import logit
from ocr_serving.model_dir import DET_LOGITS, DET_STRIDE, INPUT
from ocr_serving.predictor.base import Predictor
from ocr_serving.reading import kernels
from ocr_serving.reading.map_size import map_size, nearest_multiple, to_map_size
from ocr_serving.reading.tiling import windows
from ocr_serving.settings import Settings

MIN_SIZE = 2.0
"""Kernels with a shorter side, in pixels of the map, are noise, and so are boxes that are not longer by BOX_MARGIN.
Sides go from centre to centre of pixels: a kernel three pixels high has 2. The original's 3 drops small print."""
CUT_OUT_SIDE = 128
"""Images with a shorter side, in pixels, are likely words or lines that were cut out of a picture."""
CUT_OUT_RATIO = 66
"""How many times as long as broad they are at most: lines that rec reads in one piece (recognition.LONGEST_LINE).
Longer ones are strips; read as a line, one of 1 x 5000 pixels would take 10 s."""
BORDER = 32
"""Pixels around what was cut out, alike its edge: the model finds no text that nothing surrounds. Between 16 and 48,
the number matters little."""
SMALL_LINE = 24
"""Height in pixels of a line that was cut out, below which det often misses letters that rec can read."""
BOX_MARGIN = 2.0
"""How much longer a box's sides must be than a kernel's, once it is widened; the original's."""
NEARER = 1.5
"""How many times as large a picture is at a nearer look, where det doubts what may be lines of text."""
CLOSER = 2
"""How many times as large a picture is at a closer look."""
_SMALLEST = 0.25
"""Share of the boxes that must be low for the text to be small."""
_WORTH = 1.5
"""How many times as many pixels a closer look must have to be worth its time."""
_LARGE = 3
"""How many times as many pixels as det sees an image must have for a closer look if it seems to have no text."""
_STRIP_RATIO = 6.0
"""How many times as long as high a kernel is that may be a leader, the dots before the page number in a contents."""
_DOUBTS = 3
"""How many such kernels of too low a score a page with leaders has; hardly any other picture has more than one."""
_DIM_CONTRAST, _DIM_BLACK = 0.45, 57
"""Contrast and black of a dimmed picture. Normalised for the model, it is as RapidOCR shows pictures, with mean and
deviation 0.5, not ImageNet's."""
_SURE = 0.7
"""Score of a box that is surely text."""


@dataclass(frozen=True)
class Detection:
    """The boxes of one image, in reading order.

    Attributes:
        quads: float32 (n, 4, 2), pixels of the image, clockwise from top-left.
        scores: float32 (n,), mean probability inside each kernel.
    """

    quads: Quads
    scores: NDArray[np.float32]


class Boxes(NamedTuple):
    """The boxes of a text map.

    Attributes:
        quads: float32 (n, 4, 2), pixels of the map, clockwise from top-left.
        scores: float32 (n,), mean probability inside each kernel.
        unsure_strips: how many long kernels had too low a score for a box.
    """

    quads: Quads
    scores: NDArray[np.float32]
    unsure_strips: int

    @property
    def sure(self) -> int:
        """How many of them are surely text."""
        return int(np.count_nonzero(self.scores >= _SURE))


class Detector:
    """Finds text boxes with any predictor of a DB model. Thread-safe."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self._predictor = predictor
        self._settings = settings

    def scale(self, image: Image) -> float:
        """How many times as large as an image, uint8 (h, w, 3), det sees it at a first look."""
        height, width = image.shape[:2]
        size = map_size(width, height, self._settings.det_limit_side, self._settings.det_enlarge)
        return float(max(size) / max(width, height))

    @memory.needed()
    def detect(self, image: Image, deadline: Deadline | None = None) -> Detection:
        """The text boxes of a BGR image, uint8 (h, w, 3).

        Raises:
            The predictor's errors; BadUpstream if its answer is not a probability map of the input's size;
            Overloaded where there is no memory; LimitExceeded if there are more than det_max_boxes boxes.
        """
        border, enlarged = 0, self._settings.det_enlarge
        seen = image
        if is_cut_out(image):
            border, enlarged = min(BORDER, *image.shape[:2]), 1.0
            seen = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
        quads, scores = self._find(seen, enlarged, deadline)
        return self._sorted(quads - border, scores, image)

    def _find(self, image: Image, enlarged: float, deadline: Deadline | None) -> tuple[Quads, NDArray[np.float32]]:
        """The boxes of an image and their scores: of the first look, or of a nearer or closer one if it is worth it.

        A nearer look counts if it has more boxes that are surely text, neither if it has more than are accepted.
        """
        height, width = image.shape[:2]
        limit = self._settings.det_limit_side
        size = map_size(width, height, limit, enlarged)
        nearer, closer = (map_size(width, height, limit, enlarged, times) for times in (NEARER, CLOSER))
        boxes = self._look(image, enlarged, 1, deadline)
        if boxes.unsure_strips >= _DOUBTS and math.prod(nearer) >= _WORTH * math.prod(size):
            with suppress(LimitExceeded):
                again = self._look(image, enlarged, NEARER, deadline)
                if again.sure > boxes.sure:
                    boxes, size = again, nearer
        is_small = self._is_small(boxes.quads) if len(boxes.quads) else width * height >= _LARGE * math.prod(size)
        if is_small and self._settings.det_small_text and math.prod(closer) >= _WORTH * math.prod(size):
            with suppress(LimitExceeded):  # words apart that were one line at first
                boxes, size = self._look(image, enlarged, CLOSER, deadline), closer
        return boxes.quads * np.array([width / size[0], height / size[1]], np.float32), boxes.scores

    def _look(self, image: Image, enlarged: float, times: float, deadline: Deadline | None) -> Boxes:
        """The boxes of an image.

        Leaders and what stands beside them make one long kernel whose score is too low for a box. Where there are such
        kernels det looks again at the picture dimmed, in which it overlooks dots. Faint text it overlooks there, too,
        so that look counts only if it has more boxes that are surely text.
        """
        seen = to_map_size(image, self._settings.det_limit_side, enlarged, times)
        boxes = boxes_from_logits(self._logits(seen, times, deadline), self._settings)
        if boxes.unsure_strips >= _DOUBTS:
            dimmed = cv2.convertScaleAbs(seen, alpha=_DIM_CONTRAST, beta=_DIM_BLACK)
            with suppress(LimitExceeded):
                again = boxes_from_logits(self._logits(dimmed, times, deadline), self._settings)
                boxes = max(boxes, again, key=lambda look: look.sure)
        return boxes

    def _is_small(self, quads: Quads) -> bool:
        """Whether text is so small, its boxes being in pixels of the map, that a closer look reads more of it."""
        heights = np.minimum(*side_lengths(quads))
        return bool(np.quantile(heights, _SMALLEST) < self._settings.det_small_text)

    def _logits(self, image: Image, times: float, deadline: Deadline | None) -> NDArray[np.float32]:
        """The text map, float32 (h, w), of an image of map_size(), put together from windows where it is long."""
        height, width = image.shape[:2]
        upright = height > width
        size = nearest_multiple(times * self._settings.det_limit_side)
        parts = windows(max(height, width), size, size // 4 // DET_STRIDE * DET_STRIDE)
        if len(parts) == 1:
            return self._predict(image, deadline)
        logits = np.empty((height, width), np.float32)
        for part in parts:
            seen = image[part.start : part.stop] if upright else image[:, part.start : part.stop]
            answer = self._predict(np.ascontiguousarray(seen), deadline)
            kept = slice(part.first - part.start, part.last - part.start)
            if upright:
                logits[part.first : part.last] = answer[kept]
            else:
                logits[:, part.first : part.last] = answer[:, kept]
        return logits

    def _predict(self, image: Image, deadline: Deadline | None) -> NDArray[np.float32]:
        """The text map, float32 (h, w), of an image whose sides are multiples of DET_STRIDE."""
        answer = self._predictor.predict({INPUT: image[None]}, [DET_LOGITS], deadline)[DET_LOGITS]
        if answer.shape != (1, 1, *image.shape[:2]) or answer.dtype != np.float32:
            raise BadUpstream("The det model answered something that is no text map of its input's size.")
        if not np.isfinite(answer).all():
            raise BadUpstream("The det model answered values that are no numbers.")
        return answer[0, 0]  # type: ignore[no-any-return]

    def _sorted(self, quads: Quads, scores: NDArray[np.float32], image: Image) -> Detection:
        """Boxes clipped to the image, the too small ones dropped, in reading order."""
        last = np.array([image.shape[1] - 1, image.shape[0] - 1], np.float32)
        quads = np.clip(quads, 0, last)
        keep = np.minimum(*side_lengths(quads)) > self._settings.det_min_side
        quads, scores = quads[keep], scores[keep]
        order = reading_order(quads)
        return Detection(quads[order], scores[order])


def is_cut_out(image: Image) -> bool:
    """Whether an image, uint8 (h, w, 3), is likely a word or a line that was cut out of a picture."""
    short, long = sorted(image.shape[:2])
    return bool(short < CUT_OUT_SIDE and long <= CUT_OUT_RATIO * short)


def is_small_line(image: Image) -> bool:
    """Whether an image, uint8 (h, w, 3), is likely a line that was cut out, so small that det may miss some of it."""
    return bool(image.shape[0] < min(SMALL_LINE, image.shape[1]) and is_cut_out(image))


def boxes_from_logits(logits: NDArray[np.float32], settings: Settings, min_size: float = MIN_SIZE) -> Boxes:
    """DB post-processing, without a sigmoid over the whole map: it keeps the order, and only scores need its values.

    Args:
        logits: float32 (h, w), the logit of each pixel's probability of being text.
        settings: det_thresh, det_box_thresh, det_unclip_ratio and det_max_boxes are used.
        min_size: see MIN_SIZE.

    Raises:
        LimitExceeded: more than det_max_boxes of them.
    """
    threshold = float(logit(np.array(settings.det_thresh, np.float32)))
    bitmap = cv2.compare(logits, threshold, cv2.CMP_GT)
    contours = kernels.outlines(bitmap)
    quads: list[NDArray[np.float32]] = []
    scores: list[float] = []
    unsure_strips = 0
    for contour in contours:
        rectangle = cv2.minAreaRect(contour)
        short, long = sorted(rectangle[1])
        if short < min_size:
            continue
        found = [kernels.scored(logits, rectangle)]
        if found[0].score < settings.det_box_thresh:
            unsure_strips += long > _STRIP_RATIO * short
            found = kernels.pieces(logits, contour, settings.det_box_thresh, min_size)
        for (center, size, angle), score in found:
            width, height = unclip(size, settings.det_unclip_ratio)
            if min(width, height) < min_size + BOX_MARGIN:
                continue
            if len(quads) == settings.det_max_boxes:
                raise LimitExceeded(
                    f"The image has more than {settings.det_max_boxes} pieces of text, the most that is accepted "
                    "(det_max_boxes); send it in parts."
                )
            quads.append(order_points(cv2.boxPoints((center, (width, height), angle))))
            scores.append(score)
    return Boxes(np.array(quads, np.float32).reshape(-1, 4, 2), np.array(scores, np.float32), unsure_strips)


def unclip(size: Sequence[float], ratio: float) -> tuple[float, float]:
    """Sides of a rectangle after the DB paper's offset, area * ratio / perimeter, has been added all around.

    The original offsets the polygon with rounded corners (pyclipper) and fits a rectangle again; for a rectangle that
    is the rectangle with the offset added to each side, without pyclipper's rounding to whole pixels.
    """
    width, height = size
    offset = width * height * ratio / (2 * (width + height))
    return width + 2 * offset, height + 2 * offset
