"""The reader's box operators: probability map -> quads, quads -> fewer quads, quads in order, crops.

Boxes stay float32 where the original truncated them to int16, and no operator changes its caller's arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_serving import geometry
from ocr_serving.detection import boxes_from_logits
from ocr_serving.errors import BadInput
from ocr_serving.geometry import Image, Quads, order_points, side_lengths
from ocr_serving.logistic import logit
from ocr_serving.settings import Settings

_MIN_SIZE = 3.0
_LINE_TOLERANCE = 10.0
"""Boxes whose tops differ by fewer pixels stand on one line."""


class DBPostProcess:
    """Probability maps of a DB model -> quads.

    Args:
        params: thresh (0.3), box_thresh (0.5), max_candidates (1000), unclip_ratio (1.5); min_size is always 3, as it
            was in the original.

    Raises:
        ConfigError: a parameter is out of range.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._max_candidates = params.get("max_candidates", 1000)
        self._settings = Settings().replace(
            det_thresh=params.get("thresh", 0.3),
            det_box_thresh=params.get("box_thresh", 0.5),
            det_max_boxes=sys.maxsize,  # a service refuses what is too much; here the rest is dropped, as it was
            det_unclip_ratio=params.get("unclip_ratio", 1.5),
        )

    def __call__(self, pred: NDArray[np.float32], ratio_list: Sequence[Sequence[float]]) -> list[Quads]:
        """The quads of each image, float32 (n, 4, 2) in pixels of the image.

        Args:
            pred: (images, 1, h, w).
            ratio_list: for each image, height and width of the map divided by those of the image.

        Raises:
            BadInput: another shape.
        """
        if pred.ndim != 4 or pred.shape[1] != 1 or len(ratio_list) != len(pred):
            raise BadInput(f"DBPostProcess takes maps (n, 1, h, w) and n ratios, not {pred.shape}, {len(ratio_list)}.")
        return [self._boxes(probability[0], ratio) for probability, ratio in zip(pred, ratio_list, strict=True)]

    def _boxes(self, probability: NDArray[np.float32], ratio: Sequence[float]) -> Quads:
        height, width = probability.shape
        quads = boxes_from_logits(logit(probability), self._settings, _MIN_SIZE).quads
        clipped: Quads = np.clip(quads[: self._max_candidates], 0, np.array([width, height], np.float32))
        clipped /= np.array([ratio[1], ratio[0]], np.float32)
        return clipped


class FilterBoxes:
    """Clip quads to their image and drop those at most `width` pixels wide or `height` high."""

    def __init__(self, width: float, height: float) -> None:
        self.filter_width = width
        self.filter_height = height

    def __call__(self, dt_boxes: Sequence[NDArray[Any]] | Quads, image_shape: Sequence[int]) -> Quads:
        """The quads that are left, float32 (n, 4, 2), each clockwise from its top-left corner.

        Args:
            dt_boxes: quads in pixels of the image, corners in any order.
            image_shape: height and width of the image, in pixels.
        """
        height, width = image_shape[:2]
        quads = np.array([order_points(np.asarray(box)) for box in dt_boxes], np.float32).reshape(-1, 4, 2)
        quads = np.clip(quads, 0, np.array([width - 1, height - 1], np.float32))
        widths, heights = (np.floor(side) for side in side_lengths(quads))
        return quads[(widths > self.filter_width) & (heights > self.filter_height)]


class SortedBoxes:
    """Puts quads in reading order."""

    def __call__(self, dt_boxes: Sequence[NDArray[Any]] | Quads) -> list[NDArray[np.float32]]:
        """The quads (4, 2) as a list; the original's one pass of swaps left long lines unsorted."""
        quads = np.asarray(dt_boxes, np.float32).reshape(-1, 4, 2)
        xs, tops = quads[:, 0].T.tolist()
        order = np.lexsort((xs, tops)).tolist()
        for i in range(1, len(order)):
            for j in range(i, 0, -1):  # a box moves left until its place is found
                left, right = order[j - 1], order[j]
                if xs[right] >= xs[left] or abs(tops[left] - tops[right]) >= _LINE_TOLERANCE:
                    break
                order[j - 1], order[j] = right, left
        return list(quads[order])


class GetRotateCropImage:
    """Cuts a quad out of an image."""

    def __call__(self, img: Image, points: NDArray[Any]) -> Image:
        """The upright picture of the quad (4, 2), which stays as it is: see geometry.crops."""
        return geometry.crops(img, np.asarray(points, np.float32)[None])[0]
