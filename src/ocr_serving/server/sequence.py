"""Models one after the other in one server, as the original runs several GeneralInferOps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ocr_serving.deadline import Deadline
from ocr_serving.errors import ConfigError
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.server.service import ServedModel


class SequencePredictor(Predictor):
    """Feeds each model with what the one before answers. See predictor.base.Predictor."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        """Link the models, which stay their owner's to close.

        Raises:
            ConfigError: one takes an input that the one before does not give.
        """
        self._models = tuple(models)
        self._links = [_link(before, after) for before, after in pairwise(models)]

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict."""
        for model, link in zip(self._models, self._links, strict=False):
            answer = model.predictor.predict(feed, list(link.values()), deadline)
            feed = {alias: answer[source] for alias, source in link.items()}
        return self._models[-1].predictor.predict(feed, fetch, deadline)

    def close(self) -> None:
        """See predictor.base.Predictor.close."""


def _link(before: ServedModel, after: ServedModel) -> dict[str, str]:
    """Alias of each input -> that of the output it takes: of the same name, or the first if it is the only input."""
    given = {variable.alias: variable.alias for variable in before.fetches}
    given |= {variable.name: variable.alias for variable in before.fetches}
    link = {feed.alias: given.get(feed.name) or given.get(feed.alias) for feed in after.feeds}
    if len(link) == 1 and None in link.values():
        link = dict.fromkeys(link, before.fetches[0].alias)
    missing = [alias for alias, source in link.items() if source is None]
    if missing:
        raise ConfigError(
            f"{after.engine_name} cannot follow {before.engine_name}: it takes {', '.join(missing)}, which the model "
            f"before does not give ({', '.join(variable.alias for variable in before.fetches)})."
        )
    return {alias: source for alias, source in link.items() if source is not None}
