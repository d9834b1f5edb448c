"""Which predictors a web service stands on: an engine in this process, a model server of its own, or another's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from ocr_serving import model_dir, recognition
from ocr_serving.detection import Detector
from ocr_serving.model_dir import CTC_INDEX, DET_LOGITS, DET_STRIDE, INPUT, ModelDir
from ocr_serving.pipeline import Pipeline
from ocr_serving.predictor.base import Array, Predictor
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.recognition import Recognizer
from ocr_serving.settings import Settings
from ocr_serving.web.backend import Backend
from ocr_serving.web.metrics import Metrics
from ocr_serving.web.model_servers import DetServer, OwnServer
from ocr_serving.web.services import DetService, OcrService, RecService, Service

Kind = Literal["ocr", "det", "rec"]

REMOTE = "remote"
"""Engine of a model in somebody else's server."""

_Probe = tuple[Mapping[str, Array], Sequence[str]]
"""Feed and fetch of a run that takes next to no time."""
_DET_PROBE: _Probe = ({INPUT: np.zeros((1, DET_STRIDE, DET_STRIDE, 3), np.uint8)}, (DET_LOGITS,))


@dataclass(frozen=True)
class Running:
    """A service that is up.

    Attributes:
        service: computes answers.
        metrics: what it counts with.
        backends: the models it stands on.
    """

    service: Service
    metrics: Metrics
    backends: tuple[Backend, ...]


@contextmanager
def running_service(kind: Kind, in_process: bool, settings: Settings) -> Iterator[Running]:
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
        wiring = _Wiring(in_process, settings, stack)
        service: Service
        if kind == "det":
            service = DetService(wiring.detector())
        elif kind == "rec":
            service = RecService(wiring.recognizer(), settings.max_pixels)
        else:
            recognizer = wiring.recognizer()
            detector = wiring.detector() if in_process else wiring.remote_detector()
            service = OcrService(Pipeline(detector, recognizer, settings.rec_min_score))
        yield Running(service, wiring.metrics, tuple(wiring.backends))


@dataclass
class _Wiring:
    """Puts a service together, and remembers the models that it takes."""

    in_process: bool
    settings: Settings
    stack: ExitStack
    metrics: Metrics = field(default_factory=Metrics)
    backends: list[Backend] = field(default_factory=list)

    def remote_detector(self) -> Detector:
        """A detector on the det model server that users start."""
        predictor = self.stack.enter_context(closing(DetServer(self.settings)))
        self.backends.append(Backend("det", "", REMOTE, "", partial(predictor.predict, *_DET_PROBE)))
        return Detector(self.metrics.measured(predictor, "det"), self.settings)

    def detector(self) -> Detector:
        """A detector on a model of the service's own."""
        model = model_dir.load(self.settings.det_model)
        model.require_det()
        return Detector(self._predictor("det", model, _DET_PROBE), self.settings)

    def recognizer(self) -> Recognizer:
        """A recogniser on a model of the service's own."""
        model = model_dir.load(self.settings.rec_model)
        height = model.require_rec()
        line = np.zeros((1, height, recognition.WIDTHS[0], 3), np.uint8)
        predictor = self._predictor("rec", model, ({INPUT: line}, (CTC_INDEX,)))
        recognizer = Recognizer(predictor, model.characters, height, self.settings)
        return self.stack.enter_context(closing(recognizer))

    def _predictor(self, role: str, model: ModelDir, probe: _Probe) -> Predictor:
        """The model in this process, or in a model server started for it."""
        predictor: LocalPredictor | OwnServer
        if self.in_process:
            predictor = LocalPredictor.load(model, self.settings)
            engine, precision, process = predictor.engine.name, predictor.engine.precision, None
        else:
            predictor = OwnServer(model, self.settings)
            process = predictor.process
            engine, precision = process.engine, process.precision
        self.stack.enter_context(closing(predictor))
        check = partial(predictor.predict, *probe)
        self.backends.append(Backend(role, model.name, engine, precision, check, process))
        return self.metrics.measured(predictor, role)
