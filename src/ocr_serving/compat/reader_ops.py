"""The reader's image operators: small callables that turn bytes into images and images into arrays.

Images are (h, w, 3), BGR unless a conversion came before.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving import image
from ocr_serving.engine.base import normalize
from ocr_serving.errors import BadInput
from ocr_serving.geometry import Image
from ocr_serving.model_dir import DET_STRIDE, Normalization
from ocr_serving.reading.map_size import input_size
from ocr_serving.settings import Settings

Array = NDArray[Any]


class Sequential:
    """Operators in a row."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        """What the last operator returns; each takes what the one before it returned."""
        for transform in self.transforms:
            img = transform(img)
        return img


class String2Image:
    """Decodes the bytes of an image file."""

    def __call__(self, img_buffer: bytes) -> Image:
        """The image, uint8.

        Raises:
            BadInput: no image that can be read (the original returned None).
        """
        return image.decode(img_buffer, Settings().max_pixels)


class File2Image:
    """Reads an image file."""

    def __call__(self, img_path: str | Path) -> Image:
        """The image, uint8.

        Raises:
            BadInput: no file, or no image that can be read.
        """
        try:
            data = Path(img_path).read_bytes()
        except OSError as error:
            raise BadInput(f"{img_path} cannot be read: {error.strerror}.") from error
        return String2Image()(data)


class Base64ToImage:
    """Decodes the base64 of an image file."""

    def __call__(self, img_base64: str | bytes) -> Image:
        """The image, uint8.

        Raises:
            BadInput: no base64, or no image that can be read.
        """
        try:
            data = base64.b64decode(img_base64)
        except ValueError as error:
            raise BadInput("The image is not base64.") from error
        return String2Image()(data)


class URL2Image:
    """Exists so that files which import it keep running; it fetches nothing."""

    def __call__(self, img_url: str) -> Image:
        """Refuse: a server that opens its callers' URLs can be turned against its own network.

        Raises:
            BadInput: always.
        """
        raise BadInput("Images are not fetched from URLs; send the image as base64, or read a file with File2Image.")


class Resize:
    """Scales to `size`: (width, height), or the length of the shorter side with the longer one at most `max_size`."""

    def __init__(
        self, size: int | tuple[int, int], max_size: int = 2147483647, interpolation: int | None = None
    ) -> None:
        self.size = size
        self.max_size = max_size
        self.interpolation = cv2.INTER_LINEAR if interpolation is None else interpolation

    def __call__(self, img: Array) -> Array:
        """The scaled image, of the same type."""
        height, width = img.shape[:2]
        if isinstance(self.size, int):
            ratio = min(self.size / min(height, width), self.max_size / max(height, width))
            target = round(width * ratio), round(height * ratio)
        else:
            target = min(self.size[0], self.max_size), min(self.size[1], self.max_size)
        resized: Array = cv2.resize(img, target, interpolation=self.interpolation)
        return resized


class CenterCrop:
    """Cuts a square of `size` pixels out of the middle."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, img: Array) -> Array:
        """A view of the square."""
        top, left = ((side - self.size) // 2 for side in img.shape[:2])
        return img[top : top + self.size, left : left + self.size]


class RGB2BGR:
    """Turns the order of the channels around."""

    def __call__(self, img: Array) -> Array:
        """A view with the channels turned around."""
        return img[:, :, ::-1]


class BGR2RGB(RGB2BGR):
    """Turns the order of the channels around."""


class Div:
    """Divides by a number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, img: Array) -> Array:
        """The quotient, float32."""
        return img.astype(np.float32) / self.value


class Normalize:
    """Subtracts the channels' means and divides by their stds.

    Args:
        mean, std: one number a channel.
        channel_first: whether images are (3, h, w), not (h, w, 3).
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], channel_first: bool = False) -> None:
        self.mean = mean
        self.std = std
        self.channel_first = channel_first

    def __call__(self, img: Array) -> Array:
        """The normalised image, float32, its axes as they were."""
        channels_last = img.transpose(1, 2, 0) if self.channel_first else img
        (b_mean, g_mean, r_mean), (b_std, g_std, r_std) = self.mean, self.std
        how = Normalization(1.0, (b_mean, g_mean, r_mean), (b_std, g_std, r_std))
        normalized: Array = normalize(channels_last[None], how)[0]
        return normalized if self.channel_first else normalized.transpose(1, 2, 0)


class Transpose:
    """Reorders the axes."""

    def __init__(self, transpose_target: Sequence[int]) -> None:
        self.transpose_target = tuple(transpose_target)

    def __call__(self, img: Array) -> Array:
        """A view with its axes in that order."""
        return img.transpose(self.transpose_target)


class ResizeByFactor:
    """Scales to at most `max_side_len` on the long side, each side the nearest multiple of `factor`."""

    def __init__(self, factor: int = DET_STRIDE, max_side_len: int = 2400) -> None:
        self.factor = factor
        self.max_side_len = max_side_len

    def __call__(self, img: Array) -> Array:
        """The scaled image; the original truncated sizes twice (see map_size.input_size)."""
        size = input_size(img.shape[1], img.shape[0], self.max_side_len, self.factor)
        resized: Array = cv2.resize(img, size, interpolation=cv2.INTER_LINEAR)
        return resized
