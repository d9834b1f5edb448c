"""Paddle Serving 0.9's in-process predictor."""

from ocr_serving.compat.local_predictor import LocalPredictor

__all__ = ["LocalPredictor"]
