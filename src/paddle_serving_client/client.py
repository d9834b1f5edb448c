"""Paddle Serving 0.9's bRPC client."""

from ocr_serving.compat.client import Client

__all__ = ["Client"]
