"""Calls to one model wherever it is served: over bRPC, at one or several addresses."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Mapping, Sequence

from ocr_serving import request_id
from ocr_serving.deadline import Deadline
from ocr_serving.errors import (
    BadInput,
    BadUpstream,
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    OcrServingError,
    Overloaded,
    UpstreamUnavailable,
)
from ocr_serving.predictor.channel import Channel
from ocr_serving.wire import compression, frame, messages, meta
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.frame import Frame
from ocr_serving.wire.messages import Response
from ocr_serving.wire.rpc_meta_pb2 import RpcResponseMeta
from ocr_serving.wire.tensor import Tensor

logger = logging.getLogger(__name__)

RPC_SECONDS = 200.0
"""The original client's time for a call that has no deadline of its own."""
TRIES = 3
"""The original client's: one and two retries, after broken connections only. Running a model twice does no harm."""
_FIRST_CORRELATION_ID = 0x2_0000_0002
"""The original client's first; any 64-bit number will do."""

_MOST_MS = 2**31 - 1
"""The meta's field is an int32."""

_STOPPING = 2003
"""brpc's ELOGOFF: the server ends and takes no more requests."""
_ERRORS: Mapping[int, type[OcrServingError]] = {
    error.brpc_code: error for error in (BadInput, Overloaded, DeadlineExceeded, EngineFailed)
}
"""What a server's error code means to its caller."""
_ASK_ANOTHER = (_STOPPING, Overloaded.brpc_code)
"""Codes of a server that did not start on the request: another one may take it."""
_TEXT_PREFIX = re.compile(r"^(\[[^\]]*\])+")
"""brpc's "[ip:port][E1003]" before the sentence."""
_LONGEST_TEXT = 500
"""Characters of a server's error text passed on."""


class Upstream:
    """The servers of one model. Calls go to each in turn, and past those that are dead or silent. Thread-safe."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Know where the servers are; nothing is connected before the first call.

        Raises:
            ConfigError: one is no address, or there is none.
        """
        if not addresses:
            raise ConfigError("A model server needs an address, for example 127.0.0.1:9293.")
        self._channels = [Channel(address) for address in addresses]
        self._turn = itertools.count()
        self._correlation_ids = itertools.count(_FIRST_CORRELATION_ID)

    def infer(
        self, tensors: Sequence[Tensor], fetch: Sequence[str], deadline: Deadline | None, log_id: int = 0
    ) -> tuple[str, Response]:
        """Run the model once.

        Args:
            tensors: the inputs, in the order of the feed variables.
            fetch: aliases of the outputs wanted; empty means all.
            deadline: when to give up, told to the server; None means RPC_SECONDS from now.
            log_id: see messages.encode_request.

        Returns:
            The address that answered, and its answer.

        Raises:
            BadInput, DeadlineExceeded, Overloaded, EngineFailed: the server said so, or the time was up.
            UpstreamUnavailable: no server could be reached.
            BadUpstream: the answer is damaged, or an error that is not known.
        """
        correlation_id = next(self._correlation_ids)
        timeout_ms = None if deadline is None else max(1, math.ceil(min(deadline.remaining() * 1000, _MOST_MS)))
        message = messages.encode_request(tensors, fetch, log_id)
        request = frame.encode(meta.for_request(correlation_id, timeout_ms, request_id.current()), message)
        address, answer = self._call(request, correlation_id, deadline or Deadline.after(RPC_SECONDS))
        if answer.meta.response.error_code:
            raise _error(answer.meta.response, address)
        try:
            payload = compression.decompress(answer.message(), answer.meta.compress_type, frame.MAX_BODY)
            return address, messages.decode_response(payload)
        except BadInput as error:
            raise BadUpstream(f"The answer of the model server at {address} is damaged: {error}") from error

    def close(self) -> None:
        """Close the connections; no call may follow."""
        for channel in self._channels:
            channel.close()

    def _call(self, request: Sequence[Buffer], correlation_id: int, deadline: Deadline) -> tuple[str, Frame]:
        """Who answered, and the answer."""
        refused: tuple[str, Frame] | None = None
        unreachable: set[Channel] = set()
        candidates = self._candidates()
        for channel in itertools.islice(itertools.cycle(candidates), max(TRIES, len(candidates))):
            if channel in unreachable:
                continue
            try:
                with channel.liveness.watched():
                    answer = channel.call(request, correlation_id, deadline)
            except OSError as error:
                logger.info("%s: %s", channel.address, error)
                if not isinstance(error, ConnectionError):  # no route, no such host, connecting takes too long
                    unreachable.add(channel)
                continue
            if answer.meta.response.error_code not in _ASK_ANOTHER:
                return channel.address, answer
            refused = channel.address, answer
            unreachable.add(channel)
        if refused is None:
            addresses = ", ".join(channel.address for channel in candidates)
            raise UpstreamUnavailable(f"No model server answers at {addresses}.")
        return refused

    def _candidates(self) -> list[Channel]:
        """Whom to try, one after the other."""
        first = next(self._turn) % len(self._channels)
        in_turn = self._channels[first:] + self._channels[:first]
        return sorted(in_turn, key=lambda channel: channel.liveness.is_doubtful())


def _error(response: RpcResponseMeta, address: str) -> OcrServingError:
    sentence = _TEXT_PREFIX.sub("", response.error_text[:_LONGEST_TEXT])
    if response.error_code == _STOPPING:
        return UpstreamUnavailable(f"The model server at {address} takes no more requests: {sentence}")
    known = _ERRORS.get(response.error_code)
    if known is not None:
        return known(sentence)
    return BadUpstream(f"The model server at {address} answered with error {response.error_code}: {sentence}")
