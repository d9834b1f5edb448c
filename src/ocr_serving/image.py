"""Image files -> BGR uint8 arrays, their size checked before a pixel is decoded."""

from __future__ import annotations

import cv2
import numpy as np

from ocr_serving import image_header
from ocr_serving.errors import BadInput, LimitExceeded
from ocr_serving.geometry import Image

KINDS = "PNG, JPEG, BMP, GIF, TIFF, WebP, PNM, PFM, JPEG 2000, AVIF, Radiance HDR or Sun raster"
"""What decode() reads, for sentences."""


def decode(data: bytes, max_pixels: int) -> Image:
    """Decode an image file as the original did: 8 bits, three channels, EXIF orientation applied.

    Args:
        data: a whole image file; of several frames or pages, the first is read.
        max_pixels: largest width times height accepted.

    Returns:
        uint8 (height, width, 3), BGR; coordinates in answers refer to this array.

    Raises:
        BadInput: not an image, or a damaged one.
        LimitExceeded: more pixels than accepted; raised from the header alone.
    """
    size = image_header.size(data)
    if size is None:
        raise BadInput(f"This is not an image file that can be read; accepted are {KINDS}.")
    width, height = size
    if width * height > max_pixels:
        raise LimitExceeded(
            f"The image is {width} x {height} pixels; at most {max_pixels} pixels in all are accepted (max_pixels)."
        )
    try:
        image: Image | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # OpenCV raises for some damaged files and returns None for others
        image = None
    if image is None:
        raise BadInput("The image file is damaged, or of a variant that cannot be read.")
    return image
