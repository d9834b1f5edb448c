"""Real models for the tests, fetched once into the checkout's models/ and kept there."""

from functools import cache
from pathlib import Path

from ocr_serving import zoo
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings


@cache
def folder(name: str) -> Path:
    """The model folder of a zoo name."""
    return zoo.fetch(name, zoo.cache_dir(), zoo.load())


@cache
def predictor(name: str, engine: str = "auto", precision: str = "auto") -> LocalPredictor:
    """An in-process predictor of a zoo model, loaded once a session."""
    return LocalPredictor.load(str(folder(name)), Settings(engine=engine, precision=precision))
