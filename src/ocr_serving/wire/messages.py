"""Request and Response messages of GeneralModelService, with the tensors' arrays passed through untouched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from ocr_serving.errors import BadInput
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire.fields import Buffer, cut, delimited
from ocr_serving.wire.tensor import PackedTensor, Tensor

_M = TypeVar("_M", bound=Message)

MOST_RUNS = 256
"""Of a model that our server makes for one Request: it keeps a thread until all are done."""
_TENSOR = 1
"""Field number of the tensors in a Request and in a ModelOutput."""
_OUTPUTS = 1
"""Field number of the ModelOutputs in a Response."""


@dataclass(frozen=True)
class Request:
    """A received Request.

    Attributes:
        tensors: the inputs.
        fetch: aliases of the outputs wanted; empty means all.
    """

    tensors: tuple[PackedTensor, ...]
    fetch: tuple[str, ...]


@dataclass(frozen=True)
class Output:
    """What one engine answered.

    Attributes:
        engine_name: for example "GeneralInferOp_0".
        tensors: the outputs.
    """

    engine_name: str
    tensors: tuple[PackedTensor, ...]


@dataclass(frozen=True)
class Response:
    """A received Response.

    Attributes:
        outputs: one for each run of the model; the original sends several where several engines feed its last op.
    """

    outputs: tuple[Output, ...]


def encode_request(tensors: Sequence[Tensor], fetch: Sequence[str] = (), log_id: int = 0) -> list[Buffer]:
    """A Request as buffers.

    Args:
        tensors: in the order of the model's feed variables.
        fetch: aliases; empty means all outputs.
        log_id: for the logs of a genuine server; ours has no use for it.

    Raises:
        BadInput: an array of a type that cannot be sent.
    """
    rest = pb.Request(fetch_var_names=fetch, log_id=log_id)
    return [*_encode_tensors(tensors), rest.SerializeToString()]


def decode_request(message: memoryview) -> Request:
    """Read a Request.

    Raises:
        BadInput: the bytes are not one.
    """
    tensors, rest = cut(message, _TENSOR)
    request = _parse(pb.Request(), rest)
    return Request(tuple(map(PackedTensor.parse, tensors)), tuple(request.fetch_var_names))


def encode_response(engine_name: str, runs: Sequence[Sequence[Tensor]], profile_time: Sequence[int]) -> list[Buffer]:
    """A Response with an output for each run of the model as buffers.

    Args:
        engine_name: for example "GeneralInferOp_0".
        runs: the tensors of each, in the order of fetch_var_names.
        profile_time: begin and end of the request, wall-clock microseconds.

    Raises:
        BadInput: an array of a type that cannot be sent.
    """
    rest = pb.ModelOutput(engine_name=engine_name).SerializeToString()
    outputs = [buffer for run in runs for buffer in delimited(_OUTPUTS, [*_encode_tensors(run), rest])]
    return [*outputs, pb.Response(profile_time=profile_time).SerializeToString()]


def decode_response(message: memoryview) -> Response:
    """Read a Response.

    Raises:
        BadInput: the bytes are not one.
    """
    outputs, rest = cut(message, _OUTPUTS)
    _parse(pb.Response(), rest)
    return Response(tuple(map(_decode_output, outputs)))


def _decode_output(message: memoryview) -> Output:
    tensors, rest = cut(message, _TENSOR)
    return Output(_parse(pb.ModelOutput(), rest).engine_name, tuple(map(PackedTensor.parse, tensors)))


def _encode_tensors(tensors: Sequence[Tensor]) -> list[Buffer]:
    return [buffer for tensor in tensors for buffer in delimited(_TENSOR, tensor.encode())]


def _parse(message: _M, encoded: bytes) -> _M:
    try:
        message.MergeFromString(encoded)
    except DecodeError as error:
        raise BadInput("The bytes are not such a message.") from error
    return message
