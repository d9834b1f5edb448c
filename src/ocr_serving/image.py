"""Image files -> BGR uint8 arrays, their size checked before a pixel is decoded."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving import memory
from ocr_serving.errors import BadInput, LimitExceeded
from ocr_serving.geometry import Image
from ocr_serving.image_files import image_header, orientation, png

KINDS = "PNG, JPEG, BMP, GIF, TIFF, WebP, PNM, JPEG 2000, AVIF, Radiance HDR or Sun raster"
"""What decode() reads, for sentences."""
MAX_JPEG_SCANS = 64
"""A progressive JPEG has ten or so. Each costs a pass over all pixels, and need not be longer than 36 bytes."""
_ROWS = 256
"""Rows composited at a time, so that little memory is taken."""
_DARK_SHARE = 0.005
"""Of what can be seen of a transparent picture: with less of it dark, it is meant for dark ground."""


@memory.needed()
def decode(data: bytes, max_pixels: int) -> Image:
    """Decode an image file: 8 bits, three channels, upright as its EXIF data says.

    Where it is transparent it is on white, or on black if all that can be seen is light.
    A file that is cut short is refused, even if only its end mark is missing: what is lost cannot be told. So is a
    damaged one as far as its format lets that be noticed; bits that flipped inside a JPEG's pixels do not.

    Args:
        data: a whole image file; of several frames or pages, the first is read.
        max_pixels: largest width times height accepted. Decoding takes up to 24 bytes of memory a pixel
            (JPEG 2000 of 16 bits with transparency).

    Returns:
        uint8 (height, width, 3), BGR; coordinates in answers refer to this array.

    Raises:
        BadInput: not an image, or a damaged one.
        LimitExceeded: more pixels than accepted; raised from the header alone.
        Overloaded: there is no memory for it.
    """
    size = image_header.size(data)
    if size is None:
        raise BadInput(f"This is not an image file of a kind that can be read; accepted are {KINDS}.")
    width, height = size
    if width * height > max_pixels:
        raise LimitExceeded(
            f"The image is {width} x {height} pixels; at most {max_pixels} pixels in all are accepted (max_pixels)."
        )
    if data.startswith(b"\xff\xd8") and _has_too_many_scans(data):
        raise BadInput(f"The JPEG file has more than {MAX_JPEG_SCANS} scans.")
    if data.startswith(png.SIGNATURE):
        data = png.essential(data)
    image = _read(data)
    if image is None:
        raise BadInput("The image file is damaged, cut short, or of a variant that cannot be read.")
    return image


def _has_too_many_scans(data: bytes) -> bool:
    """Whether a JPEG file has; those that end inside a segment are for the decoder to refuse."""
    if data.count(b"\xff\xda") <= MAX_JPEG_SCANS:  # quickly, for nearly all files
        return False
    try:
        return image_header.jpeg_scans(data) > MAX_JPEG_SCANS
    except struct.error:
        return False
    except ValueError:  # more segments than any picture
        return True


def _read(data: bytes) -> Image | None:
    """The upright picture; None where OpenCV cannot read it."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our errors say what its lines on stderr would
    buffer = np.frombuffer(data, np.uint8)
    try:
        # Only this way does OpenCV hand out transparency, and then it leaves the turning to us.
        stored, kinds, blocks = cv2.imdecodeWithMetadata(buffer, cv2.IMREAD_UNCHANGED)
        if stored is None:
            return None
        alpha = None if data.startswith(b"BM") else _alpha(stored)  # the fourth byte of bitmaps is mostly unused, and 0
        colours = _bgr(stored)
        del stored
        if colours is None:
            colours = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # it raises for some damaged files and returns None for others
        if error.code == cv2.Error.StsNoMem:
            raise
        return None
    if colours is None:
        return None
    exif = dict(zip(kinds, blocks, strict=True)).get(cv2.IMAGE_METADATA_EXIF, np.empty(0))
    return orientation.upright(colours if alpha is None else _on_paper(colours, alpha), data, exif.tobytes())


def _bgr(stored: NDArray[Any]) -> Image | None:
    """Three channels of 8 bits out of what IMREAD_UNCHANGED gives; None where that takes IMREAD_COLOR to scale it."""
    if stored.dtype != np.uint8 or (stored.ndim == 3 and stored.shape[2] == 2):
        return None
    if stored.ndim == 2:
        return cv2.cvtColor(stored, cv2.COLOR_GRAY2BGR)  # type: ignore[no-any-return]
    return stored if stored.shape[2] == 3 else cv2.cvtColor(stored, cv2.COLOR_BGRA2BGR)


def _alpha(stored: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Opacity, uint8 (h, w), 255 opaque; None for a picture all opaque, and for one that would vanish altogether.

    None of floats, too, which decode() refuses.
    """
    if stored.ndim == 2 or stored.shape[2] != 4 or stored.dtype.kind == "f":
        return None
    alpha = stored[..., 3]
    most = int(alpha.max())
    if not most or alpha.min() == most:
        return None
    return alpha if alpha.dtype == np.uint8 else cv2.convertScaleAbs(alpha, alpha=255 / most)  # of 10 or 12 bits too


def _on_paper(colours: Image, alpha: NDArray[np.uint8]) -> Image:
    """The colours (h, w, 3), overwritten, as they look through their opacity (h, w) on white; light ones on black."""
    on_black = _is_light(colours, alpha)
    for top in range(0, len(colours), _ROWS):
        rows = colours[top : top + _ROWS]
        opacity = cv2.cvtColor(alpha[top : top + _ROWS], cv2.COLOR_GRAY2BGR)
        if on_black:
            cv2.multiply(rows, opacity, rows, scale=1 / 255)
        else:
            rows[:] = cv2.bitwise_not(cv2.multiply(cv2.bitwise_not(rows), opacity, scale=1 / 255))
    return colours


def _is_light(colours: Image, alpha: NDArray[np.uint8]) -> bool:
    """Whether hardly anything that can be seen is dark: such letters are meant for dark ground."""
    dark = seen = 0
    for top in range(0, len(colours), _ROWS):
        opaque = alpha[top : top + _ROWS] > 127
        grey = cv2.cvtColor(colours[top : top + _ROWS], cv2.COLOR_BGR2GRAY)
        seen += int(np.count_nonzero(opaque))
        dark += int(np.count_nonzero(opaque & (grey < 128)))
    return dark < _DARK_SHARE * seen
