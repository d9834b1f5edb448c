"""What becomes of a request for which there is no memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from ocr_serving.errors import Overloaded


@contextmanager
def needed() -> Iterator[None]:
    """The block, which works on an image.

    Raises:
        Overloaded: numpy or OpenCV got no memory in it.
    """
    try:
        yield
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        raise Overloaded("There is no memory left for this image now; try again.") from error
