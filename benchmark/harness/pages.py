"""Drawn pages with a known number of lines, and of a known size."""

from __future__ import annotations

import random

import cv2
import numpy as np

from ocr_serving.geometry import Image

SIDE = 1920
"""Pixels of a page, square."""
COLUMNS, ROWS = 10, 50
"""Places for a line; all are of one width, so that only their number differs between pages."""
MOST_LINES = COLUMNS * ROWS
TEXT_HEIGHT = 24
_LETTERS = "abcdefghkmnoprstuvxyz"


def page(lines: int) -> Image:
    """A white page with so many lines of one word, at most MOST_LINES, spread evenly: uint8 (SIDE, SIDE, 3) BGR."""
    sheet: Image = np.full((SIDE, SIDE, 3), 250, np.uint8)
    dice = random.Random(lines)
    font = cv2.FontFace("sans")
    for i in range(lines):
        row, column = divmod(i * MOST_LINES // lines, COLUMNS)
        word = "".join(dice.choices(_LETTERS, k=7))
        place = (column * SIDE // COLUMNS + 30, (row + 1) * SIDE // ROWS - 8)
        cv2.putText(sheet, word, place, (40, 36, 34), font, TEXT_HEIGHT, 400)
    return sheet


def resized(image: Image, megapixels: float) -> Image:
    """An image enlarged or shrunk to so many pixels."""
    factor = (megapixels * 1e6 / (image.shape[0] * image.shape[1])) ** 0.5
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    changed: Image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)
    return changed


def jpeg(image: Image) -> bytes:
    """The image as a file."""
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
