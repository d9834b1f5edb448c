"""Which predictors a web service stands on: an engine in this process, a model server of its own, or another's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Literal

from ocr_serving import model_dir
from ocr_serving.detection import Detector
from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import ModelDir
from ocr_serving.pipeline import Pipeline
from ocr_serving.predictor.base import Predictor
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.recognition import Recognizer
from ocr_serving.settings import Settings
from ocr_serving.web.services import DetService, OcrService, RecService, Service
from ocr_serving.web.upstream import DetServer, OwnServer

Kind = Literal["ocr", "det", "rec"]


@contextmanager
def running_service(kind: Kind, in_process: bool, settings: Settings) -> Iterator[Service]:
    """A service and everything it stands on, stopped at the end of the block.

    Args:
        kind: what it computes.
        in_process: run the models here, as the original's debugger services do. Otherwise the OCR service calls the
            det model server at settings.det_endpoint, and every other model runs in a model server started here.
        settings: of the service, its engines and the model servers it starts.

    Raises:
        ConfigError: a model folder, engine or port is missing or wrong.
    """
    with ExitStack() as stack:
        if kind == "det":
            yield DetService(_detector(kind, in_process, settings, stack))
        elif kind == "rec":
            yield RecService(_recognizer(in_process, settings, stack))
        else:
            recognizer = _recognizer(in_process, settings, stack)
            detector = _detector(kind, in_process, settings, stack)
            yield OcrService(Pipeline(detector, recognizer, settings.rec_min_score))


def _detector(kind: Kind, in_process: bool, settings: Settings, stack: ExitStack) -> Detector:
    if kind == "ocr" and not in_process:
        return Detector(stack.enter_context(closing(DetServer(settings))), settings)
    return Detector(_predictor(model_dir.load(settings.det_model), in_process, settings, stack), settings)


def _recognizer(in_process: bool, settings: Settings, stack: ExitStack) -> Recognizer:
    model = model_dir.load(settings.rec_model)
    if model.image_height is None or not model.characters:
        raise ConfigError(f"Model folder {model.path} is no rec model: its inference.yml holds no dictionary.")
    predictor = _predictor(model, in_process, settings, stack)
    return stack.enter_context(closing(Recognizer(predictor, model.characters, model.image_height, settings)))


def _predictor(model: ModelDir, in_process: bool, settings: Settings, stack: ExitStack) -> Predictor:
    """The model in this process, or in a model server started for it."""
    if in_process:
        return stack.enter_context(closing(LocalPredictor.load(model, settings)))
    return stack.enter_context(closing(OwnServer(model, settings)))
