"""A predictor whose engine runs in a model server: ours or a genuine Paddle Serving 0.9 one, over bRPC."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from ocr_serving.deadline import Deadline
from ocr_serving.errors import (
    BadInput,
    BadUpstream,
    DeadlineExceeded,
    EngineFailed,
    OcrServingError,
    Overloaded,
    UpstreamUnavailable,
)
from ocr_serving.model_dir import DERIVED, Variable
from ocr_serving.predictor.base import Array, Arrays
from ocr_serving.predictor.channel import Channel
from ocr_serving.wire import compression, frame, messages, meta, tensor
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.frame import Frame
from ocr_serving.wire.rpc_meta_pb2 import RpcResponseMeta
from ocr_serving.wire.tensor import Tensor

logger = logging.getLogger(__name__)

RPC_SECONDS = 200.0
"""The original client's time for a call that has no deadline of its own."""
TRIES = 3
"""The original client's: one and two retries, after broken connections only. Running a model twice does no harm."""
_FIRST_CORRELATION_ID = 0x2_0000_0002
"""The original client's first; any 64-bit number will do."""

_ERRORS: Mapping[int, type[OcrServingError]] = {
    error.brpc_code: error for error in (BadInput, Overloaded, DeadlineExceeded, EngineFailed)
} | {2003: UpstreamUnavailable}
"""What a server's error code means to its caller; 2003 is brpc's ELOGOFF, sent while a server stops."""
_TEXT_PREFIX = re.compile(r"^(\[[^\]]*\])+")
"""brpc's "[ip:port][E1003]" before the sentence."""
_LONGEST_TEXT = 500
"""Characters of a server's error text passed on."""


class RemotePredictor:
    """The model behind one or several addresses. See predictor.base.Predictor."""

    def __init__(self, endpoints: str | Sequence[str], feeds: Sequence[Variable], fetches: Sequence[Variable]) -> None:
        """Know where the servers are; nothing is connected before the first call.

        Args:
            endpoints: "host:port", or several that serve the same model: calls go to each in turn, and past a dead one.
            feeds: the model's inputs, as model_dir.read_conf returns them.
            fetches: its outputs.

        Raises:
            ConfigError: an endpoint is no address.
        """
        self._channels = [Channel(each) for each in ([endpoints] if isinstance(endpoints, str) else endpoints)]
        self._feeds = tuple(feeds)
        self._fetches = {variable.alias: variable for variable in fetches}
        self._turn = itertools.count()
        self._correlation_ids = itertools.count(_FIRST_CORRELATION_ID)

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict; arrays must be of the types that wire.tensor.Tensor takes."""
        self._check_fetch(fetch)
        correlation_id = next(self._correlation_ids)
        timeout_ms = None if deadline is None else max(1, math.ceil(deadline.remaining() * 1000))
        request = frame.encode(
            meta.for_request(correlation_id, timeout_ms), messages.encode_request(self._tensors(feed), fetch)
        )
        channel, answer = self._call(request, correlation_id, deadline or Deadline.after(RPC_SECONDS))
        return self._unpack(answer, fetch, channel.address)

    def close(self) -> None:
        """See predictor.base.Predictor.close."""
        for channel in self._channels:
            channel.close()

    def _check_fetch(self, fetch: Sequence[str]) -> None:
        if not self._fetches.keys() >= set(fetch):
            raise BadInput(f"Unknown fetch; the model has: {', '.join(self._fetches)}.")

    def _tensors(self, feed: Mapping[str, Array]) -> list[Tensor]:
        """The feed as the original client sends it: in the order of the feed variables."""
        if feed.keys() != {variable.alias for variable in self._feeds}:
            raise BadInput(f"The model takes exactly these inputs: {', '.join(v.alias for v in self._feeds)}.")
        return [Tensor(variable.name, variable.alias, feed[variable.alias]) for variable in self._feeds]

    def _call(self, request: Sequence[Buffer], correlation_id: int, deadline: Deadline) -> tuple[Channel, Frame]:
        """The answer and who gave it."""
        unreachable: set[Channel] = set()
        for channel in self._candidates():
            if channel in unreachable:
                continue
            try:
                return channel, channel.call(request, correlation_id, deadline)
            except ConnectionError as error:
                logger.info("%s: %s", channel.address, error)
            except OSError as error:  # no route, no such host, connecting takes too long: not worth a second try
                logger.info("%s: %s", channel.address, error)
                unreachable.add(channel)
        addresses = ", ".join(channel.address for channel in self._channels)
        raise UpstreamUnavailable(f"No model server answers at {addresses}.")

    def _candidates(self) -> Iterator[Channel]:
        """Whom to try, one after the other."""
        first = next(self._turn)
        for i in range(max(TRIES, len(self._channels))):
            yield self._channels[(first + i) % len(self._channels)]

    def _unpack(self, answer: Frame, fetch: Sequence[str], address: str) -> Arrays:
        """The arrays of an answer, checked against what was asked for."""
        if answer.meta.response.error_code:
            raise _error(answer.meta.response, address)
        try:
            arrays = _decode(answer)
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


def _decode(answer: Frame) -> Arrays:
    payload = compression.decompress(answer.message(), answer.meta.compress_type, frame.MAX_BODY)
    response = messages.decode_response(payload)
    return {tensor.alias: tensor.unpack() for output in response.outputs for tensor in output.tensors}


def _error(response: RpcResponseMeta, address: str) -> OcrServingError:
    sentence = _TEXT_PREFIX.sub("", response.error_text[:_LONGEST_TEXT])
    known = _ERRORS.get(response.error_code)
    if known is not None:
        return known(sentence)
    return BadUpstream(f"The model server at {address} answered with error {response.error_code}: {sentence}")
