"""What the model server offers, whatever protocol asks for it: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, NotFound
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.base import Arrays, Predictor
from ocr_serving.server.metrics import Metrics
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
    """

    predictor: Predictor
    feeds: tuple[Variable, ...]
    fetches: tuple[Variable, ...]


class ModelService:
    """Served models by name. Thread-safe.

    Attributes:
        models: name -> model.
        metrics: counts what is served.
    """

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        """Serve the models; a protocol that names none, as bRPC's GeneralModelService, means the first."""
        self.models = dict(models)
        self.metrics = Metrics()
        self._default = next(iter(self.models))

    def model(self, name: str) -> ServedModel:
        """The model of that name.

        Raises:
            NotFound: there is none.
        """
        if name not in self.models:
            raise NotFound(f"No such model; this server has: {', '.join(self.models)}.")
        return self.models[name]

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
        """
        name = self._default if model is None else model
        served = self.model(name)
        feed = _bind(tensors, served.feeds)
        with self.metrics.inference(name):
            outputs = served.predictor.predict(feed, fetch, deadline)
        names = {variable.alias: variable.name for variable in served.fetches}
        return [Tensor(names[alias], alias, array) for alias, array in outputs.items()]

    def close(self) -> None:
        """Free the models; no call may follow."""
        for model in self.models.values():
            model.predictor.close()


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
