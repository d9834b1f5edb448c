"""Paddle Serving 0.9's client package."""

from ocr_serving.compat.client import Client
from ocr_serving.compat.http_client import HttpClient

__all__ = ["Client", "HttpClient"]
