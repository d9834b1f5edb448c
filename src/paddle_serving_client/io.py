"""Paddle Serving 0.9's conversion of models."""

from ocr_serving.compat.convert import inference_model_to_serving

__all__ = ["inference_model_to_serving"]
