"""Paddle Serving 0.9's web service for subclassing."""

from ocr_serving.compat.web_service import NO_PIPELINE, WebService

__all__ = ["WebService"]


def __getattr__(name: str) -> object:
    """Say what there is in place of the Pipeline's part, which its scripts import from here."""
    if name == "Op":
        raise ImportError(NO_PIPELINE)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
