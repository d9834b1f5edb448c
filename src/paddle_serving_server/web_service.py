"""Paddle Serving 0.9's web service for subclassing."""

from ocr_serving.compat.web_service import WebService

__all__ = ["WebService"]
