"""An inference request of the Open Inference Protocol v2, whether it came over HTTP or gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ocr_serving.deadline import FOREVER_SECONDS
from ocr_serving.errors import BadInput
from ocr_serving.wire.tensor import Tensor

_UNSUPPORTED = {
    "shared_memory_region": "Shared memory is not offered; send the data with the request.",
    "classification": "Classification of outputs is not offered; fetch the output itself.",
}
"""Parameters without which an answer would not be what was asked for; other unknown ones are passed over."""


@dataclass(frozen=True)
class OipRequest:
    """A request, checked.

    Attributes:
        id: the client's, to be given back; may be empty.
        tensors: the inputs.
        fetch: names of the outputs wanted; empty means all.
        seconds: how long the client waits, None where it did not say.
        in_binary: output -> whether it is wanted in binary; of the others, `all_binary` holds. HTTP only.
        all_binary: see in_binary.
    """

    id: str
    tensors: tuple[Tensor, ...]
    fetch: tuple[str, ...]
    seconds: float | None = None
    in_binary: Mapping[str, bool] = field(default_factory=dict)
    all_binary: bool = False


def seconds(parameters: Mapping[str, Any]) -> float | None:
    """The time limit in a request's parameters, which count it in microseconds; 0 is none, and so is for ever.

    Raises:
        BadInput: it is no number.
    """
    timeout = parameters.get("timeout", 0)
    if not isinstance(timeout, int) or not 0 <= timeout < 2**63:
        raise BadInput("The parameter timeout must be a whole number of microseconds.")
    return timeout / 1e6 if 0 < timeout <= FOREVER_SECONDS * 1e6 else None


def check_parameters(parameters: Iterable[str]) -> None:
    """Refuse the parameters of an input or output that cannot be passed over.

    Raises:
        BadInput: there is one.
    """
    for name in parameters:
        if name in _UNSUPPORTED:
            raise BadInput(_UNSUPPORTED[name])


def tensor(name: str, read: Callable[[], NDArray[Any]]) -> Tensor:
    """An input whose array `read` gives; what that refuses is said about the input.

    Raises:
        BadInput: what `read` raises.
    """
    try:
        return Tensor(name, name, read())
    except BadInput as error:
        raise BadInput(f"Input {name}: {error}") from error
