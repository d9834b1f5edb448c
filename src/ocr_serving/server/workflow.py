"""What a model server is told to serve: a model, several in sequence, or det and rec chained."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ocr_serving import model_dir
from ocr_serving.batching import BatchingPredictor
from ocr_serving.errors import BadInput, ConfigError
from ocr_serving.predictor.base import Predictor
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.server.sequence import SequencePredictor
from ocr_serving.server.service import ServedModel
from ocr_serving.settings import Settings
from ocr_serving.wire.frame import MAX_BODY

logger = logging.getLogger(__name__)

READER, RESPONSE = "GeneralReaderOp", "GeneralResponseOp"
"""First and last op of every workflow, which take no model."""
DETECTION, INFER, REC = "GeneralDetectionOp", "GeneralInferOp", "GeneralRecOp"
OPS = (READER, DETECTION, INFER, REC, RESPONSE)
CHAIN, SEQUENCE = "ocr", "sequence"
"""Names of what several models make together; each is served under its own name, too."""
TOUCHED = "fluid_time_file"
"""File of a model folder; touching it loads the model anew."""
BATCH_ROWS = 32
"""Default of the original's --batch_infer_size."""


@dataclass(frozen=True)
class Step:
    """An op with a model.

    Attributes:
        op: DETECTION, INFER or REC.
        model: the model folder.
        settings: of its engine.
        conf: declares inputs and outputs in place of the folder's own configuration.
        runtime_threads: runs that go on at once, each of all requests that wait; 0 runs each request by itself.
        batch_rows: most rows of such a run.
        reload_on: files that mean, when they are touched, that the model is to be loaded anew.
    """

    op: str
    model: Path
    settings: Settings
    conf: Path | None = None
    runtime_threads: int = 0
    batch_rows: int = BATCH_ROWS
    reload_on: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A workflow whose models are in memory.

    Attributes:
        models: name -> model; the first answers requests that name none.
        predictors: the steps'.
    """

    models: Mapping[str, ServedModel]
    predictors: tuple[LocalPredictor, ...]

    @property
    def title(self) -> str:
        """The models' names, for people."""
        return " and ".join(dict.fromkeys(predictor.model.name for predictor in self.predictors))

    @property
    def engines(self) -> str:
        """What runs them, for people."""
        engines = dict.fromkeys((predictor.engine.name, predictor.engine.precision) for predictor in self.predictors)
        return "; ".join(f"engine {name}, precision {precision}" for name, precision in engines)


class Workflow:
    """Steps that can be loaded.

    Attributes:
        reload_on: the steps' files.
    """

    def __init__(self, steps: Sequence[Step], settings: Settings) -> None:
        """
        Args:
            steps: in the order that a request takes.
            settings: of what several models do together.

        Raises:
            ConfigError: this order is not served.
        """
        ops = [step.op for step in steps]
        self._chained = ops in ([DETECTION, INFER], [DETECTION, REC])
        if not self._chained and (not ops or not set(ops) <= {INFER, REC}):
            raise ConfigError(
                f"The ops {', '.join(ops)} in this order are not served; {DETECTION} is followed by one {INFER} or "
                f"{REC}, and without it there may be any number of these."
            )
        self._steps = tuple(steps)
        self._names = _numbered(ops)
        self._settings = settings
        self.reload_on = tuple(file for step in steps for file in step.reload_on)

    def load(self, like: Loaded | None = None) -> Loaded:
        """Load the models.

        Args:
            like: the models that these are to replace: what ran there last is run here once.

        Raises:
            ConfigError: a model cannot be loaded, or does not go with the others.
            EngineFailed: it does not run.
        """
        with ExitStack() as undo:
            predictors = []
            single: dict[str, ServedModel] = {}
            for step, name in zip(self._steps, self._names, strict=True):
                folder = model_dir.load(step.model, step.conf)
                predictor = LocalPredictor.load(folder, step.settings, step.runtime_threads or None, MAX_BODY)
                predictors.append(predictor)
                runner = _batching(predictor, step)
                undo.callback(runner.close)
                taken = folder.name in (*single, CHAIN, SEQUENCE)
                single[name if taken else folder.name] = ServedModel(runner, folder.feeds, folder.fetches, name)
            if like is not None:
                for new, old in zip(predictors, like.predictors, strict=True):
                    _rehearse(new, old)
            models = single
            if len(single) > 1:
                together = self._together(predictors, list(single.values()))
                models = {CHAIN if self._chained else SEQUENCE: together, **single}
            undo.pop_all()
        return Loaded(models, tuple(predictors))

    def _together(self, predictors: Sequence[LocalPredictor], models: Sequence[ServedModel]) -> ServedModel:
        if not self._chained:
            return ServedModel(SequencePredictor(models), models[0].feeds, models[-1].fetches, self._names[-1])
        from ocr_serving.server.chain import ChainedPredictor  # OpenCV: 0.1 s that a single model need not wait for

        (det, rec), (det_model, rec_model) = models, (predictor.model for predictor in predictors)
        settings = self._settings.replace(device=self._steps[-1].settings.device)  # batches suit what reads them
        chain = ChainedPredictor(det.predictor, det_model, rec.predictor, rec_model, settings)
        return ServedModel(chain, chain.feeds, chain.fetches, self._names[-1])


def _numbered(ops: Sequence[str]) -> list[str]:
    """The original's names of a workflow's steps: GeneralInferOp_0, GeneralInferOp_1, ..."""
    seen: Counter[str] = Counter()
    names = []
    for op in ops:
        names.append(f"{op}_{seen[op]}")
        seen[op] += 1
    return names


def _batching(predictor: LocalPredictor, step: Step) -> Predictor:
    """The predictor, with a queue before it if the step asks for one."""
    if not step.runtime_threads:
        return predictor
    return BatchingPredictor(predictor, step.runtime_threads, step.batch_rows)


def _rehearse(new: LocalPredictor, old: LocalPredictor) -> None:
    try:
        new.rehearse(old)
    except BadInput as error:
        logger.warning("%s takes other requests than before: %s", new.model.name, error)
