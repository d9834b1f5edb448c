"""Paddle Serving 0.9's HTTP and gRPC client."""

from ocr_serving.compat.http_client import HttpClient

__all__ = ["HttpClient"]
