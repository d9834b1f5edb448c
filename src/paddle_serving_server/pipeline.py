"""Paddle Serving 0.9's Pipeline services, which are not here: importing this says what is."""

from ocr_serving.compat.web_service import NO_PIPELINE

raise ImportError(NO_PIPELINE)
