"""Paddle Serving 0.9's reader operators, as far as its OCR examples use them."""

from paddle_serving_app.reader import image_reader, ocr_reader
from paddle_serving_app.reader.image_reader import *  # noqa: F403
from paddle_serving_app.reader.ocr_reader import *  # noqa: F403

__all__ = [*image_reader.__all__, *ocr_reader.__all__]
