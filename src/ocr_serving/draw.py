"""Pictures of results: boxes and texts drawn with OpenCV's built-in fonts, Chinese included."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ocr_serving.geometry import Image, Quads, corners, is_column, side_lengths

BOX_COLOR = (60, 160, 0)
TEXT_COLOR = (40, 30, 20)
FONT = "uni"
"""The built-in font that has Chinese characters."""
WEIGHT = 400
"""Regular. Without a weight, OpenCV draws letters as bold as whatever the process drew last."""
LETTER_HEIGHT = 0.8
"""Height of the letters as a part of their box's height."""


def page(image: Image, quads: Quads, texts: Sequence[str]) -> Image:
    """The image with its boxes outlined and, to its right, each text where it stands.

    Args:
        image: uint8 (h, w, 3) BGR.
        quads: float32 (n, 4, 2), pixels of the image, clockwise from top-left.
        texts: n strings.

    Returns:
        uint8 (h, 2 * w, 3) BGR.
    """
    outlined, written = image.copy(), np.full_like(image, 255)
    thickness = max(2, round(max(image.shape) / 700))
    for quad, text in zip(quads, texts, strict=True):
        corners = [np.rint(quad).astype(np.int32)]
        cv2.polylines(outlined, corners, True, BOX_COLOR, thickness, cv2.LINE_AA)
        cv2.polylines(written, corners, True, BOX_COLOR, 1, cv2.LINE_AA)
        _write_into(written, quad, text)
    return np.hstack([outlined, written])


def line(image: Image, text: str) -> Image:
    """The image of one line, uint8 (h, w, 3) BGR, with its text below it: uint8 (2 * h, w, 3)."""
    return np.vstack([image, _label(text, image.shape[1], image.shape[0])])


def _write_into(sheet: Image, quad: Quads, text: str) -> None:
    """Draw a text into its quad (4, 2), turned and slanted as the quad is; tall ones read downwards."""
    (top,), (left,) = side_lengths(quad[None])
    if is_column(top, left):
        quad, top, left = np.roll(quad, -1, axis=0), left, top
    label = _label(text, max(1, round(float(top))), max(1, round(float(left))))
    height, width = label.shape[:2]
    sides = np.array([sheet.shape[1], sheet.shape[0]])
    start = np.floor(quad.min(axis=0)).clip(0, sides - 1)
    end = np.ceil(quad.max(axis=0)).clip(start + 1, sides)
    size = (int(end[0] - start[0]), int(end[1] - start[1]))
    homography = cv2.getPerspectiveTransform(corners(width, height), (quad - start).astype(np.float32))
    warped = cv2.warpPerspective(label, homography, size, flags=cv2.INTER_AREA, borderValue=(255, 255, 255))
    place = sheet[int(start[1]) : int(start[1]) + size[1], int(start[0]) : int(start[0]) + size[0]]
    np.minimum(place, warped, out=place)


def _label(text: str, width: int, height: int) -> Image:
    """White paper, uint8 (height, width, 3), with the text as large as fits."""
    paper = np.full((height, width, 3), 255, np.uint8)
    font = cv2.FontFace(FONT)
    size = max(1, round(height * LETTER_HEIGHT))
    _, _, needed, _ = cv2.getTextSize((0, 0), text, (0, 0), font, size, WEIGHT)
    size = max(1, min(size, int(size * width / max(1, needed))))
    baseline = (height + round(size * 0.7)) // 2
    cv2.putText(paper, text, (0, baseline), TEXT_COLOR, font, size, WEIGHT)
    return paper
