"""Exceptions that a request ended with, made fit for an answer."""

from __future__ import annotations

import logging

from ocr_serving.errors import OcrServingError

logger = logging.getLogger(__name__)


def to_answer(error: Exception) -> OcrServingError:
    """What the client is told: an error of ours as it is; any other is a bug, whose trace goes to the log alone."""
    if isinstance(error, OcrServingError):
        logger.info("Request refused: %s", error)
        return error
    logger.error("Request failed", exc_info=error)
    return OcrServingError("The server failed; its log says more.")
