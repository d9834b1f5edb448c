"""Paddle Serving 0.9's decoder of what a rec model answers."""

from ocr_serving.compat.ocr_reader import OCRReader

__all__ = ["OCRReader"]
