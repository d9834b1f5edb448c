"""Our pipeline put together here, on predictors in this process or on the model servers of a running service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from harness.lines import Read
from harness.services import Models, Running
from ocr_serving import image, model_dir, settings
from ocr_serving.detection import Detector
from ocr_serving.geometry import Image
from ocr_serving.pipeline import Pipeline
from ocr_serving.predictor.base import Predictor
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.recognition import Recognizer
from ocr_serving.settings import Settings


def decode(data: bytes) -> Image:
    """An image file as the services read it: uint8 (h, w, 3) BGR."""
    return image.decode(data, Settings().max_pixels)


def choose(models: Models, **overrides: str) -> Settings:
    """The settings of the environment (OCR_*), with these models and these settings."""
    return settings.load({**models.settings, **overrides})


@contextmanager
def local_predictors(models: Models, chosen: Settings) -> Iterator[tuple[LocalPredictor, LocalPredictor]]:
    """Det and rec in this process.

    Raises:
        ConfigError: the engine that the settings choose cannot be used.
    """
    with (
        closing(LocalPredictor.load(str(models.det), chosen)) as det,
        closing(LocalPredictor.load(str(models.rec), chosen)) as rec,
    ):
        yield det, rec


@contextmanager
def remote_predictors(models: Models, service: Running) -> Iterator[tuple[RemotePredictor, RemotePredictor]]:
    """Det and rec in the model servers of a running RPC service."""
    with ExitStack() as stack:
        det, rec = (
            stack.enter_context(closing(RemotePredictor(endpoint, model.feeds, model.fetches)))
            for model, endpoint in (
                (model_dir.load(models.det), service.det_endpoint),
                (model_dir.load(models.rec), service.rec_endpoint),
            )
        )
        yield det, rec


@contextmanager
def pipeline(detector: Detector, rec: Predictor, models: Models, chosen: Settings) -> Iterator[Pipeline]:
    """Detect, crop, recognise."""
    model = model_dir.load(models.rec)
    with closing(Recognizer(rec, model.characters, model.image_height or 0, chosen)) as recognizer:
        yield Pipeline(detector, recognizer, chosen.rec_min_score)


@contextmanager
def reader_on(det: Predictor, rec: Predictor, models: Models, chosen: Settings) -> Iterator[Read]:
    """The pipeline on these predictors, which stay open: from the bytes of an image file to its texts; thread-safe."""
    with pipeline(Detector(det, chosen), rec, models, chosen) as recipe:
        yield lambda data: recipe.run(decode(data)).texts


@contextmanager
def reader(models: Models) -> Iterator[Read]:
    """The in-process pipeline. See reader_on."""
    chosen = choose(models)
    with local_predictors(models, chosen) as (det, rec), reader_on(det, rec, models, chosen) as read:
        yield read
