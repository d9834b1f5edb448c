"""Client: a model server called over bRPC, with the original's methods and returns."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocr_serving.compat import feeds
from ocr_serving.compat.client_config import ClientConfig, ConfiguredClient, encryption_refused
from ocr_serving.compat.feeds import BadCall
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, BadUpstream, ConfigError, OcrServingError
from ocr_serving.predictor.base import Array
from ocr_serving.predictor.upstream import Upstream
from ocr_serving.wire import tensor
from ocr_serving.wire.messages import Output, Response
from ocr_serving.wire.tensor import PackedTensor

logger = logging.getLogger(__name__)

Result = dict[str, Any]


class FetchError(BadUpstream, ValueError):
    """An output is not in the answer, or of another type; a ValueError as well, which is what the original raised."""


@dataclass(frozen=True)
class _Variant:
    tag: str
    upstream: Upstream
    weight: float


class Client(ConfiguredClient):
    """Calls the servers of a model. Once connected, thread-safe.

    Where a call fails, predict() returns None and logs the reason, as the original; with `raise_on_error` it raises it.
    """

    def __init__(self, raise_on_error: bool = False) -> None:
        self._raise_on_error = raise_on_error
        self._variants: list[_Variant] = []
        self._timeout: float | None = None

    def add_variant(self, tag: str, cluster: Sequence[str], variant_weight: float) -> None:
        """Let a share of the calls, by weight, go to these servers.

        Args:
            tag: what predict(need_variant_tag=True) calls them.
            cluster: "host:port" of each.
            variant_weight: as against the other variants'.

        Raises:
            ConfigError: one is no address, or the weight is negative or no number.
        """
        try:
            weight = float(variant_weight)
        except ValueError:
            weight = -1.0
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"A variant's weight is a number from 0 on, not {variant_weight!r}.")
        addresses = [part.strip() for address in cluster for part in address.split(",") if part.strip()]
        self._variants.append(_Variant(tag, Upstream(addresses), weight))

    def set_rpc_timeout_ms(self, rpc_timeout: int) -> None:
        """How long a call may take, in milliseconds; 200000 where this is not called.

        Raises:
            BadCall: no whole number from 1 on.
        """
        if not isinstance(rpc_timeout, int) or rpc_timeout < 1:
            raise BadCall("rpc_timeout must be int type.")
        self._timeout = rpc_timeout / 1000

    def connect(self, endpoints: str | Sequence[str] | None = None, encryption: bool = False) -> None:
        """Name the servers; nothing is connected before the first call.

        Args:
            endpoints: "host:port" of each, all of the same model. Without effect where there are variants.
            encryption: not offered.

        Raises:
            ConfigError: one is no address, or encryption is asked for.
            BadCall: neither endpoints nor variants.
        """
        if encryption:
            raise encryption_refused()
        if self._variants:
            if endpoints is not None:
                logger.warning("The endpoints %s have no effect, since there are variants.", endpoints)
        elif endpoints is None:
            raise BadCall("You must set the endpoints parameter or use add_variant function to create a variant.")
        else:
            addresses = [endpoints] if isinstance(endpoints, str) else endpoints
            self.add_variant(f"default_tag_{id(self)}", addresses, 100)

    def predict(
        self,
        feed: Mapping[str, Any] | Sequence[Any] | None = None,
        fetch: str | Sequence[str] | None = None,
        batch: bool = False,
        need_variant_tag: bool = False,
        log_id: int = 0,
        deadline: Deadline | None = None,
    ) -> Any:
        """Run the model on a server.

        Args:
            feed: alias of an input -> array or list, [such a mapping], or the list for the only input. Values are cast
                to the type that the configuration declares (see feeds.as_array) and stay as they are. "x.lod" holds the
                level-of-detail offsets of "x".
            fetch: aliases of outputs; unknown ones are passed over, and without any all outputs come back.
            batch: whether arrays have their batch dimension; otherwise one is put in front.
            need_variant_tag: return [outputs, tag of the variant that was called].
            log_id: see messages.encode_request.
            deadline: when to give up, if sooner than set_rpc_timeout_ms says.

        Returns:
            alias -> array (of str where strings came), and "alias.lod" -> array where there are offsets; {engine: such
            a mapping} where the server answered for none or for several engines; None where the call failed, without
            `raise_on_error`.

        Raises:
            BadCall: a feed that the model does not take.
            FetchError: the answer lacks an output, or has it in another type than the configuration declares.
            ConfigError: no configuration is loaded, or connect() was not called.
            OcrServingError: with `raise_on_error`, whatever Upstream.infer raises.
        """
        config, names = self._loaded(), self._loaded().known_fetches(fetch)
        tensors = feeds.tensors(feeds.as_mapping(feed, config.feeds), config.feeds, batch)
        variant = self._choose()
        try:
            address, response = variant.upstream.infer(tensors, names, self._sooner(deadline), log_id)
        except OcrServingError as error:
            if self._raise_on_error:
                raise
            logger.error("predict failed: %s", error)
            return None
        result = _result(response, names, config, address)
        return [result, variant.tag] if need_variant_tag else result

    def release(self) -> None:
        """Close the connections; connect() opens new ones."""
        variants, self._variants = self._variants, []
        for variant in variants:
            variant.upstream.close()

    def _choose(self) -> _Variant:
        if not self._variants:
            raise ConfigError("connect must be called before predict.")
        weights = [variant.weight for variant in self._variants]
        return random.choices(self._variants, weights if any(weights) else None)[0]

    def _sooner(self, deadline: Deadline | None) -> Deadline | None:
        if self._timeout is None:
            return deadline
        timeout = Deadline.after(self._timeout)
        return timeout if deadline is None else Deadline(min(timeout.at, deadline.at), deadline.has_left)


def _result(response: Response, names: Sequence[str], config: ClientConfig, address: str) -> Result:
    """What predict() returns."""
    found = {output.engine_name: _arrays(output, names, config, address) for output in response.outputs}
    return next(iter(found.values())) if len(response.outputs) == 1 else found


def _arrays(output: Output, names: Sequence[str], config: ClientConfig, address: str) -> Result:
    packed = {tensor.alias: tensor for tensor in output.tensors}
    lod_names = {variable.alias for variable in config.fetches if variable.is_lod}
    result: Result = {}
    for name in names or packed:
        if name not in packed:
            raise _failed_to_fetch(name, address)
        result[name] = _array(packed[name], config, address)
        if name in lod_names and packed[name].lod:
            result[name + feeds.LOD_SUFFIX] = np.array(packed[name].lod, np.int32)
    return result


def _array(packed: PackedTensor, config: ClientConfig, address: str) -> Array:
    """The array, writable as the original's; an output that the configuration does not know keeps its own type."""
    try:
        array = np.array(packed.strings(), np.str_) if packed.holds_strings else packed.unpack()
    except BadInput as error:
        raise _failed_to_fetch(packed.alias, address) from error
    for variable in config.fetches:
        expected = tensor.dtype_of(variable.elem_type)
        if variable.alias == packed.alias and expected not in (None, array.dtype):
            raise _failed_to_fetch(packed.alias, address)
    return array if array.flags.writeable else array.copy()


def _failed_to_fetch(name: str, address: str) -> FetchError:
    return FetchError(
        f"Failed to fetch, maybe the type of [{name}] is wrong, please check the model file (served at {address})"
    )
