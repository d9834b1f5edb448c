"""Image -> quads: resize, the det model, and DB post-processing of its probability map.

DB: Liao et al., Real-time Scene Text Detection with Differentiable Binarization, AAAI 2020. The model predicts a shrunk
kernel of each text; its contour becomes a rectangle, which is then widened back (unclip).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadUpstream, LimitExceeded
from ocr_serving.geometry import Image, Quads, order_points, reading_order, side_lengths
from ocr_serving.logistic import logit, sigmoid
from ocr_serving.model_dir import DET_LOGITS, DET_STRIDE
from ocr_serving.predictor.base import Predictor
from ocr_serving.settings import Settings
from ocr_serving.tiling import windows

INPUT = "x"
LONG_RATIO = 3.0
"""Images more than this many times as long as broad are seen in windows. Up to there, receipts read as well whole."""
LONG_SIDE = 1.5
"""A long image up to this many times the limit is seen whole: little is lost in shrinking it."""
PAGE_RATIO = 1.5
"""Sides of a page of paper, roughly."""
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
BOX_MARGIN = 2.0
"""How much longer a box's sides must be than a kernel's, once it is widened; the original's."""


@dataclass(frozen=True)
class Detection:
    """The boxes of one image, in reading order.

    Attributes:
        quads: float32 (n, 4, 2), pixels of the image, clockwise from top-left.
        scores: float32 (n,), mean probability inside each kernel.
    """

    quads: Quads
    scores: NDArray[np.float32]


class Detector:
    """Finds text boxes with any predictor of a DB model. Thread-safe."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self._predictor = predictor
        self._settings = settings

    def detect(self, image: Image, deadline: Deadline | None = None) -> Detection:
        """The text boxes of a BGR image, uint8 (h, w, 3).

        Raises:
            The predictor's errors; BadUpstream if its answer is not a probability map of the input's size;
            LimitExceeded if there are more than det_max_boxes boxes.
        """
        border = min(BORDER, *image.shape[:2]) if is_cut_out(image) else 0
        seen = image
        if border:
            seen = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
        resized = to_map_size(seen, self._settings.det_limit_side)
        height, width = resized.shape[:2]
        quads, scores = boxes_from_logits(self._logits(resized, deadline), self._settings)
        quads *= np.array([seen.shape[1] / width, seen.shape[0] / height], np.float32)
        return self._sorted(quads - border, scores, image)

    def _logits(self, image: Image, deadline: Deadline | None) -> NDArray[np.float32]:
        """The text map, float32 (h, w), of an image of map_size(), put together from windows where it is long."""
        height, width = image.shape[:2]
        upright = height > width
        size = _nearest_multiple(self._settings.det_limit_side, DET_STRIDE)
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


def to_map_size(image: Image, limit: int) -> Image:
    """An image, uint8 (h, w, 3), in the size of its text map: map_size().

    Shrunk to half or less, each pixel is the mean of those that it stands for: thin strokes would else fall between
    those that are looked at. Shrunk less, that reads photos worse. What is shrunk to a quarter or less is halved first,
    which OpenCV does many times as fast; an odd last row or column is left out of that.
    """
    size = map_size(image.shape[1], image.shape[0], limit)
    while _is_times(4, image, size):
        width, height = image.shape[1] // 2, image.shape[0] // 2
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    how = cv2.INTER_AREA if _is_times(2, image, size) else cv2.INTER_LINEAR
    resized: Image = cv2.resize(image, size, interpolation=how)
    return resized


def _is_times(factor: int, image: Image, size: tuple[int, int]) -> bool:
    """Whether both sides of an image are at least so many times those of a (width, height)."""
    return bool(image.shape[1] >= factor * size[0] and image.shape[0] >= factor * size[1])


def map_size(width: int, height: int, limit: int) -> tuple[int, int]:
    """The (width, height) of the text map of an image: det's input_size(), and more for long images.

    Of a long image, the short side gets as many pixels as that of a page would, and det sees it in windows.
    """
    long, short = max(width, height), min(width, height)
    if long <= LONG_RATIO * short or long <= LONG_SIDE * limit:
        return input_size(width, height, limit)
    ratio = min(1.0, limit / (PAGE_RATIO * short))
    return _nearest_multiple(width * ratio, DET_STRIDE), _nearest_multiple(height * ratio, DET_STRIDE)


def input_size(width: int, height: int, limit: int, stride: int = DET_STRIDE) -> tuple[int, int]:
    """The (width, height) that det sees: at most `limit` on the long side, each the nearest multiple of `stride`.

    The original truncated sizes twice: a long side of 1074 became 959 and then 896, and a side that was no multiple
    lost one block more than needed (720 became 672).
    """
    ratio = min(1.0, limit / max(width, height))
    return _nearest_multiple(width * ratio, stride), _nearest_multiple(height * ratio, stride)


def _nearest_multiple(side: float, stride: int) -> int:
    return max(stride, int(side / stride + 0.5) * stride)


def boxes_from_logits(
    logits: NDArray[np.float32], settings: Settings, min_size: float = MIN_SIZE
) -> tuple[Quads, NDArray[np.float32]]:
    """DB post-processing, without a sigmoid over the whole map: it keeps the order, and only scores need its values.

    Args:
        logits: float32 (h, w), the logit of each pixel's probability of being text.
        settings: det_thresh, det_box_thresh, det_unclip_ratio and det_max_boxes are used.
        min_size: see MIN_SIZE.

    Returns:
        quads float32 (n, 4, 2) in pixels of the map, clockwise from top-left, and their scores float32 (n,).

    Raises:
        LimitExceeded: more than det_max_boxes of them.
    """
    threshold = float(logit(np.array(settings.det_thresh, np.float32)))
    bitmap = cv2.compare(logits, threshold, cv2.CMP_GT)
    contours, _ = cv2.findContours(bitmap, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    quads: list[NDArray[np.float32]] = []
    scores: list[float] = []
    for contour in contours:
        center, size, angle = cv2.minAreaRect(contour)
        if min(size) < min_size:
            continue
        score = kernel_score(logits, cv2.boxPoints((center, size, angle)))
        if score < settings.det_box_thresh:
            continue
        size = unclip(size, settings.det_unclip_ratio)
        if min(size) < min_size + BOX_MARGIN:
            continue
        if len(quads) == settings.det_max_boxes:
            raise LimitExceeded(
                f"The image has more than {settings.det_max_boxes} pieces of text, the most that is accepted "
                "(det_max_boxes); send it in parts."
            )
        quads.append(order_points(cv2.boxPoints((center, size, angle))))
        scores.append(score)
    return np.array(quads, np.float32).reshape(-1, 4, 2), np.array(scores, np.float32)


def unclip(size: tuple[float, float], ratio: float) -> tuple[float, float]:
    """Sides of a rectangle after the DB paper's offset, area * ratio / perimeter, has been added all around.

    The original offsets the polygon with rounded corners (pyclipper) and fits a rectangle again; for a rectangle that
    is the rectangle with the offset added to each side, without pyclipper's rounding to whole pixels.
    """
    width, height = size
    offset = width * height * ratio / (2 * (width + height))
    return width + 2 * offset, height + 2 * offset


def kernel_score(logits: NDArray[np.float32], quad: NDArray[np.float32]) -> float:
    """Mean probability inside a quad (4, 2) of a map (h, w), its corners cut to whole pixels as in the original."""
    height, width = logits.shape
    xs, ys = quad.T.tolist()  # four numbers each: Python is ten times as fast as numpy there
    left, right = (min(max(x, 0), width - 1) for x in (math.floor(min(xs)), math.ceil(max(xs))))
    top, bottom = (min(max(y, 0), height - 1) for y in (math.floor(min(ys)), math.ceil(max(ys))))
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(quad - (left, top)).astype(np.int32)], 1)
    probability = sigmoid(logits[top : bottom + 1, left : right + 1])
    return float(cv2.mean(probability, mask)[0])
