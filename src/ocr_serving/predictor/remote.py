"""A predictor whose engine runs in a model server: ours or a genuine Paddle Serving 0.9 one, over bRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, BadUpstream
from ocr_serving.model_dir import DERIVED, Variable
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.predictor.upstream import Upstream
from ocr_serving.wire import tensor
from ocr_serving.wire.messages import MOST_RUNS, Output
from ocr_serving.wire.tensor import Tensor


class RemotePredictor(Predictor):
    """The model behind one or several addresses. See predictor.base.Predictor."""

    def __init__(self, endpoints: str | Sequence[str], feeds: Sequence[Variable], fetches: Sequence[Variable]) -> None:
        """Know where the servers are; nothing is connected before the first call.

        Args:
            endpoints: "host:port", or several that serve the same model: see upstream.Upstream.
            feeds: the model's inputs, as model_dir.read_conf returns them.
            fetches: its outputs.

        Raises:
            ConfigError: an endpoint is no address.
        """
        self._upstream = Upstream([endpoints] if isinstance(endpoints, str) else endpoints)
        self._feeds = tuple(feeds)
        self._fetches = {variable.alias: variable for variable in fetches}

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict; arrays must be of the types that wire.tensor.Tensor takes."""
        return self.predict_each([feed], fetch, deadline)[0]

    def predict_each(
        self, feeds: Sequence[Mapping[str, Array]], fetch: Sequence[str] = (), deadline: Deadline | None = None
    ) -> list[Arrays]:
        """See predictor.base.Predictor.predict_each. Several feeds need a server of ours: see general_model.answer."""
        if not self._fetches.keys() >= set(fetch):
            raise BadInput(f"Unknown fetch; the model has: {', '.join(self._fetches)}.")
        calls = [feeds[at : at + MOST_RUNS] for at in range(0, len(feeds), MOST_RUNS)]
        return [answer for call in calls for answer in self._call(call, fetch, deadline)]

    def close(self) -> None:
        """See predictor.base.Predictor.close."""
        self._upstream.close()

    def _call(
        self, feeds: Sequence[Mapping[str, Array]], fetch: Sequence[str], deadline: Deadline | None
    ) -> list[Arrays]:
        """The answers to one request."""
        tensors = [tensor for feed in feeds for tensor in self._tensors(feed)]
        address, response = self._upstream.infer(tensors, fetch, deadline)
        answers = [response.outputs] if len(feeds) == 1 else [(output,) for output in response.outputs]
        if len(answers) != len(feeds):
            raise BadUpstream(f"The model server at {address} answered {len(answers)} of {len(feeds)} runs.")
        return [self._unpack(outputs, fetch, address) for outputs in answers]

    def _tensors(self, feed: Mapping[str, Array]) -> list[Tensor]:
        """The feed as the original client sends it: in the order of the feed variables."""
        if feed.keys() != {variable.alias for variable in self._feeds}:
            raise BadInput(f"The model takes exactly these inputs: {', '.join(v.alias for v in self._feeds)}.")
        return [Tensor(variable.name, variable.alias, feed[variable.alias]) for variable in self._feeds]

    def _unpack(self, outputs: Sequence[Output], fetch: Sequence[str], address: str) -> Arrays:
        """The arrays of one run, checked against what was asked for."""
        try:
            arrays = {tensor.alias: tensor.unpack() for output in outputs for tensor in output.tensors}
        except BadInput as error:
            raise BadUpstream(f"The answer of the model server at {address} is damaged: {error}") from error
        wanted = fetch or [alias for alias in self._fetches if alias not in DERIVED]
        for alias in wanted:
            if alias not in arrays:
                raise BadUpstream(f"The model server at {address} did not return {alias}; does it serve another model?")
            expected = tensor.dtype_of(self._fetches[alias].elem_type)
            if expected is not None and arrays[alias].dtype != expected:
                raise BadUpstream(
                    f"The model server at {address} returned {alias} as {arrays[alias].dtype}, not as {expected}."
                )
        return {alias: arrays[alias] for alias in wanted}
