"""Paddle Serving 0.9's client package."""

from ocr_serving.compat.client import Client

__all__ = ["Client"]
