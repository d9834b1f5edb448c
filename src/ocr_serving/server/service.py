"""What the model server offers, whatever protocol asks for it: named tensors in, named tensors out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, NotFound, TooLarge
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.base import Arrays, Predictor
from ocr_serving.server.metrics import Metrics
from ocr_serving.wire.frame import MAX_BODY
from ocr_serving.wire.tensor import Tensor

ENGINE_NAME = "GeneralInferOp_0"
"""What the original calls the only engine of a server that was started without --op."""


@dataclass(frozen=True)
class ServedModel:
    """A predictor and the variables its callers may name.

    Attributes:
        predictor: runs the model.
        feeds: inputs.
        fetches: outputs, derived ones included.
        engine_name: what GeneralModelService's answers call it.
    """

    predictor: Predictor
    feeds: tuple[Variable, ...]
    fetches: tuple[Variable, ...]
    engine_name: str = ENGINE_NAME


class ModelService:
    """Served models by name, which can be replaced while they are in use. Thread-safe.

    Attributes:
        metrics: counts what is served.
    """

    def __init__(self, models: Mapping[str, ServedModel], metrics: Metrics | None = None) -> None:
        """Serve the models; a protocol that names none, as bRPC's GeneralModelService, means the first."""
        self.metrics = metrics or Metrics()
        self._lock = threading.Lock()
        self._current = _Generation(models)

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """Name -> model."""
        return self._current.models

    @property
    def engine_name(self) -> str:
        """What GeneralModelService's answers call the engine."""
        return next(iter(self.models.values())).engine_name

    def model(self, name: str) -> ServedModel:
        """The model of that name.

        Raises:
            NotFound: there is none.
        """
        return _find(self.models, name)

    def infer(
        self, tensors: Iterable[Tensor], fetch: Sequence[str], deadline: Deadline | None, model: str | None = None
    ) -> list[Tensor]:
        """Run a model once.

        Args:
            tensors: its inputs. Each is bound by its name in the graph, as the original does, or else by its alias.
            fetch: aliases of the outputs wanted; empty means all of the graph's own.
            deadline: when to give up.
            model: which one; None means the first.

        Returns:
            The outputs in the order of `fetch`.

        Raises:
            NotFound: no such model.
            BadInput: an unknown or repeated name, or what the predictor refuses. What else it raises passes through.
            TooLarge: see check_size().
        """
        with self._leased() as models:
            name = next(iter(models)) if model is None else model
            served = _find(models, name)
            feed = _bind(tensors, served.feeds)
            with self.metrics.inference(name):
                outputs = served.predictor.predict(feed, fetch, deadline)
        names = {variable.alias: variable.name for variable in served.fetches}
        found = [Tensor(names[alias], alias, array) for alias, array in outputs.items()]
        check_size(found)
        return found

    def replace(self, models: Mapping[str, ServedModel]) -> None:
        """Serve other models from the next call on; calls under way finish on the old ones, which are then freed."""
        new = _Generation(models)
        with self._lock:
            old, self._current = self._current, new
        old.release()

    def close(self) -> None:
        """Free the models once the calls under way are done; no further call may follow."""
        self._current.release()

    @contextmanager
    def _leased(self) -> Iterator[Mapping[str, ServedModel]]:
        """The models, which are not freed before the end of the block."""
        with self._lock:
            generation = self._current
            generation.acquire()
        try:
            yield generation.models
        finally:
            generation.release()


class _Generation:
    """Models that are replaced together, and freed when nobody uses them any more."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        """Begin with one user: the service."""
        self.models = dict(models)
        self._lock = threading.Lock()
        self._users = 1

    def acquire(self) -> None:
        """Count a user; only where there is still one."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Count a user less; the last one frees the models."""
        with self._lock:
            self._users -= 1
            unused = self._users == 0
        if unused:
            for model in self.models.values():
                model.predictor.close()


def check_size(outputs: Iterable[Tensor]) -> None:
    """Make sure that an answer can hold the outputs.

    Raises:
        TooLarge: no client of bRPC would take them, and other protocols are not to cost more memory.
    """
    size = sum(output.array.nbytes for output in outputs)
    if size > MAX_BODY:
        raise TooLarge(
            f"The outputs take {size} bytes or more, and an answer may hold {MAX_BODY}; send or fetch less at once."
        )


def _find(models: Mapping[str, ServedModel], name: str) -> ServedModel:
    if name not in models:
        raise NotFound(f"No such model; this server has: {', '.join(models)}.")
    return models[name]


def _bind(tensors: Iterable[Tensor], feeds: Sequence[Variable]) -> Arrays:
    """Alias -> array."""
    aliases = {variable.alias: variable.alias for variable in feeds}
    aliases |= {variable.name: variable.alias for variable in feeds}
    feed: Arrays = {}
    for tensor in tensors:
        alias = aliases.get(tensor.name) or aliases.get(tensor.alias)
        if alias is None or alias in feed:
            known = ", ".join(variable.name for variable in feeds)
            raise BadInput(f"An input has an unknown name or comes twice; the model takes: {known}.")
        feed[alias] = tensor.array
    return feed
