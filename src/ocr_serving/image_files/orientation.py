"""How a picture is to be turned: what its file says, and the turning."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from ocr_serving.geometry import Image
from ocr_serving.image_files import avif_header, image_header

_TAG = 0x0112
_TRANSPOSED = (5, 6, 7, 8)
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
"""EXIF orientation -> cv2.flip's code, after the transposition (CIPA DC-008, 4.6.5, Orientation)."""


def upright(image: Image, data: bytes, exif: bytes) -> Image:
    """A picture as it is to be seen.

    Args:
        image: uint8 (h, w, 3), as it is stored; of a TIFF file, as OpenCV has turned it.
        data: the file. AVIF tells in its own boxes, which win over EXIF.
        exif: its EXIF data, empty without; damaged EXIF data turns nothing.
    """
    if image_header.is_avif(data):
        turns, mirrored = avif_header.turn(data)
        turned = np.rot90(image, turns)
        return np.ascontiguousarray(turned if mirrored is None else np.flip(turned, mirrored))
    orientation = _exif_orientation(exif)
    if orientation in _TRANSPOSED:
        image = cv2.transpose(image)
    if orientation in _FLIPS:
        image = cv2.flip(image, _FLIPS[orientation])
    return image


def _exif_orientation(exif: bytes) -> int:
    """1 to 8; 1, which is upright, also where the data does not tell or is damaged."""
    try:
        return image_header.tiff_tags(exif.removeprefix(b"Exif\0\0"), (_TAG,)).get(_TAG, 1)
    except struct.error:
        return 1
