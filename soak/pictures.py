"""Images for requests: small lines of text in many sizes, and what is no image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
from harness.images import ROOT

from ocr_serving.geometry import Image


def png(image: Image) -> bytes:
    """The image as a file."""
    return bytes(cv2.imencode(".png", image)[1])


def line(text: str, height: int = 40) -> bytes:
    """A file with one line of black text on white."""
    font = cv2.FontFace("uni")
    image = np.full((height, max(height, 14 * len(text) * height // 40 + 20), 3), 255, np.uint8)
    cv2.putText(image, text, (8, height * 3 // 4), (0, 0, 0), font, height // 2)
    return png(image)


@cache
def lines(count: int) -> list[bytes]:
    """So many files that differ in text, and some in size."""
    return [line(f"Number {7919 * i % 100_000}", 32 + 8 * (i % 4)) for i in range(count)]


@cache
def words(count: int) -> list[bytes]:
    """So many files as small as can be read, which differ in text and size."""
    return [line(f"{31 * i % 1000}", 32 + 8 * (i % 4)) for i in range(count)]


@cache
def page() -> bytes:
    """The sample photo, shrunk so that a machine of two cores answers some ten a second."""
    photo = cv2.imread(str(ROOT / "imgs/sign.jpg"))
    return png(cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


def sizes(count: int) -> Iterator[bytes]:
    """So many files of sizes that all differ, up to about 300 x 300, with a word in each."""
    for i in range(count):
        height, width = 24 + i % 50 * 5, 60 + i // 50 * 6
        image = np.full((height, width, 3), 255, np.uint8)
        cv2.putText(image, "word", (4, height * 3 // 4), (0, 0, 0), cv2.FontFace("uni"), min(18, height // 2))
        yield png(image)
