"""What the model server offers, whatever protocol asks for it: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.base import Arrays, Predictor
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
    """Served models by name. Thread-safe."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        """Serve the models; a protocol that names none, as bRPC's GeneralModelService, means the first."""
        self.models = dict(models)
        self._default = next(iter(self.models.values()))

    def infer(self, tensors: Iterable[Tensor], fetch: Sequence[str], deadline: Deadline | None) -> list[Tensor]:
        """Run the default model once.

        Args:
            tensors: its inputs. Each is bound by its name in the graph, as the original does, or else by its alias.
            fetch: aliases of the outputs wanted; empty means all of the graph's own.
            deadline: when to give up.

        Returns:
            The outputs in the order of `fetch`.

        Raises:
            BadInput: an unknown or repeated name, or what the predictor refuses. What else it raises passes through.
        """
        model = self._default
        outputs = model.predictor.predict(_bind(tensors, model.feeds), fetch, deadline)
        names = {variable.alias: variable.name for variable in model.fetches}
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
