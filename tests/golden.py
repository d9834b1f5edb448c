"""The genuine ops' own arrays (paddle_serving_app 0.9.0, PP-OCRv4 mobile, cv2 4.10), as far as the tests need them."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np

FOLDER = Path(__file__).parent / "data" / "golden"


@cache
def ops() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "ops.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@cache
def page() -> np.ndarray:
    """The photo behind all of them, uint8 (1150, 720, 3) BGR, stored without loss."""
    return cv2.imread(str(FOLDER / "page.webp"), cv2.IMREAD_COLOR)
