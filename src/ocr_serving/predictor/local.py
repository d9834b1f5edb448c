"""A predictor whose engine runs in this process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ocr_serving import model_dir
from ocr_serving.deadline import Deadline
from ocr_serving.engine.base import Engine, is_image
from ocr_serving.engine.select import load_engine
from ocr_serving.errors import BadInput, ConfigError, TooLarge
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE, DET_LOGITS, DET_STRIDE, ModelDir
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.settings import Settings
from ocr_serving.wire import tensor

_LEAST_WIDTH = 8
"""Of a rec model's input, in pixels: of a narrower one nothing is left half way through the graph."""
_STEP_PIXELS = 8
"""Of a line's width that PP-OCR's rec models make one time step of."""


class LocalPredictor(Predictor):
    """An engine behind the names of its model folder. See predictor.base.Predictor."""

    def __init__(self, model: ModelDir, engine: Engine, most_bytes: float = math.inf) -> None:
        self.model = model
        self.engine = engine
        self._most_bytes = most_bytes
        # A fetch alias is matched by the graph's own name, else by position: PaddleX's models all differ in names.
        self._outputs = {v.alias: engine.outputs[i] for i, v in enumerate(model.graph_fetches[: len(engine.outputs)])}
        self._outputs |= {v.alias: v.name for v in model.graph_fetches if v.name in engine.outputs}
        self._inputs = {v.alias: engine.inputs[i] for i, v in enumerate(model.feeds[: len(engine.inputs)])}
        self._inputs |= {v.alias: v.name for v in model.feeds if v.name in engine.inputs}
        types = {v.alias: tensor.dtype_of(v.elem_type) for v in model.feeds}
        self._types = {alias: dtype for alias, dtype in types.items() if dtype is not None}
        self._last_run: tuple[Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], Sequence[str]] | None = None

    @classmethod
    def load(
        cls, model: str | ModelDir, settings: Settings, sessions: int | None = None, most_bytes: float = math.inf
    ) -> LocalPredictor:
        """Load a model folder with the engine that the settings choose.

        Args:
            model: the folder.
            settings: of the engine.
            sessions: runs that may go on at once; None takes what suits the model.
            most_bytes: of the probabilities of all classes that a rec model gives in one run.

        Raises:
            ConfigError: see model_dir.load and engine.select.load_engine; or the dictionary is another model's.
        """
        folder = model if isinstance(model, ModelDir) else model_dir.load(model)
        if sessions is None:
            # Lines come in many batches at once, which run best side by side; an image for det comes alone.
            sessions = settings.rec_runs if folder.image_height else 1
        engine = load_engine(folder, settings, sessions)
        if folder.characters and engine.classes not in (None, len(folder.characters)):
            raise ConfigError(
                f"The dictionary in {folder.path} is another model's: with blank and space it has "
                f"{len(folder.characters)} entries, and the model tells {engine.classes} apart."
            )
        return cls(folder, engine, most_bytes)

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict."""
        names = list(fetch) or list(self._outputs)
        for name in names:
            if name not in self._outputs and name not in self.model.derived:
                known = ", ".join([*self._outputs, *self.model.derived])
                raise BadInput(f"Unknown fetch; model {self.model.name} has: {known}.")
        self._check_feed(feed)
        if any(name in self._outputs for name in names):
            self._check_answer(feed)
        if deadline is not None:
            deadline.check("before the engine could start")
        arrays = {self._inputs[alias]: array for alias, array in feed.items()}
        found = self.engine.run(arrays, [self._outputs.get(name, name) for name in names], deadline)
        self._last_run = {alias: (array.shape, array.dtype) for alias, array in feed.items()}, names
        return {name: found[self._outputs.get(name, name)] for name in names}

    def rehearse(self, other: LocalPredictor) -> None:
        """Run, on zeros, what `other` ran last, so that its next caller finds this one warm.

        Raises:
            What predict() raises: this model cannot take the other's place.
        """
        if other._last_run is not None:
            inputs, fetch = other._last_run
            self.predict({alias: np.zeros(shape, dtype) for alias, (shape, dtype) in inputs.items()}, fetch)

    def close(self) -> None:
        """See predictor.base.Predictor.close; an engine is freed with its last reference."""

    def _check_feed(self, feed: Mapping[str, Array]) -> None:
        if set(feed) != set(self._inputs):
            raise BadInput(f"Model {self.model.name} takes exactly these inputs: {', '.join(self._inputs)}.")
        for alias, array in feed.items():
            if array.dtype == object or array.dtype.kind in "SU":
                raise BadInput(f"Input {alias} must hold numbers.")
            if self.model.normalization is not None:
                self._check_image(alias, array)
            elif array.dtype != (expected := self._types.get(alias, array.dtype)):
                raise BadInput(f"Input {alias} must be {expected}; it is {array.dtype}.")
            if array.size == 0:
                raise BadInput(f"Input {alias} is empty: its shape is {array.shape}.")

    def _check_answer(self, feed: Mapping[str, Array]) -> None:
        """Refuse lines whose probabilities of all classes would be too many, before they are computed."""
        classes = self.engine.classes
        if self.model.image_height is None or classes is None:
            return
        for array in feed.values():
            rows, width = len(array), array.shape[2 if is_image(array) else 3]
            size = rows * (width // _STEP_PIXELS) * classes * np.dtype(np.float32).itemsize
            if size > self._most_bytes:
                raise TooLarge(
                    f"The probabilities of all {classes} classes for {rows} lines of {width} pixels take {size} bytes, "
                    f"and {self._most_bytes} are allowed; send fewer lines, or fetch {CTC_INDEX} and {CTC_SCORE}."
                )

    def _check_image(self, alias: str, array: Array) -> None:
        image, floats = is_image(array), array.dtype == np.float32 and array.ndim == 4 and array.shape[1] == 3
        if not image and not floats:
            raise BadInput(
                f"Input {alias} must be float32 (n, 3, h, w), normalised, or uint8 (n, h, w, 3) in BGR; "
                f"it is {array.dtype} {array.shape}."
            )
        height, width = array.shape[1:3] if image else array.shape[2:]
        if self.model.image_height not in (None, height):
            raise BadInput(f"Input {alias} must be {self.model.image_height} pixels high; its shape is {array.shape}.")
        if self.model.image_height is not None and width < _LEAST_WIDTH:
            raise BadInput(f"Input {alias} must be {_LEAST_WIDTH} pixels wide or more; its shape is {array.shape}.")
        if DET_LOGITS in self.model.derived and (height % DET_STRIDE or width % DET_STRIDE):
            raise BadInput(f"Sides of input {alias} must be multiples of {DET_STRIDE}; its shape is {array.shape}.")
