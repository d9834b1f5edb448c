"""Inference over gRPC in the Open Inference Protocol v2; arrays in raw contents pass through without being copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ocr_serving.errors import BadInput
from ocr_serving.wire import elements, oip, oip_tensor
from ocr_serving.wire import oip_pb2 as pb
from ocr_serving.wire.fields import cut, delimited
from ocr_serving.wire.oip import OipRequest
from ocr_serving.wire.tensor import Tensor

_RAW_INPUTS, _RAW_OUTPUTS = 7, 6
"""Field numbers in ModelInferRequest and ModelInferResponse."""
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    oip_tensor.BYTES: "bytes_contents",
}
"""Datatype -> the field of InferTensorContents that holds its elements; FP16 exists in raw contents only."""


def decode_request(message: bytes) -> tuple[str, str, OipRequest]:
    """Read a ModelInferRequest: name of the model, version or "", request.

    Raises:
        BadInput: the bytes are none; the message says what is wrong.
    """
    raws, rest = cut(memoryview(message), _RAW_INPUTS)
    try:
        request = pb.ModelInferRequest.FromString(rest)
    except DecodeError as error:
        raise BadInput("The bytes are not a ModelInferRequest.") from error
    if raws and len(raws) != len(request.inputs):
        raise BadInput(f"There are {len(request.inputs)} inputs and {len(raws)} raw_input_contents.")
    for parameters in (*(i.parameters for i in request.inputs), *(o.parameters for o in request.outputs)):
        oip.check_parameters(parameters)
    asked = OipRequest(
        id=request.id,
        tensors=tuple(_read_inputs(request.inputs, raws)),
        fetch=tuple(output.name for output in request.outputs),
        seconds=oip.seconds({name: _value(parameter) for name, parameter in request.parameters.items()}),
    )
    return request.model_name, request.model_version, asked


def encode_response(model: str, version: str, request: OipRequest, tensors: Iterable[Tensor]) -> bytes:
    """The ModelInferResponse to a request, its arrays in raw_output_contents.

    Raises:
        BadInput: an array of a type that cannot be sent.
    """
    outputs, raws = [], []
    for tensor in tensors:
        datatype = oip_tensor.datatype_of(tensor.array.dtype)
        outputs.append(pb.InferTensor(name=tensor.alias, datatype=datatype, shape=tensor.array.shape))
        raws += delimited(_RAW_OUTPUTS, [oip_tensor.to_raw(tensor)])
    response = pb.ModelInferResponse(model_name=model, model_version=version, id=request.id, outputs=outputs)
    return b"".join([response.SerializeToString(), *raws])


def _read_inputs(inputs: Sequence[pb.InferTensor], raws: Sequence[memoryview]) -> list[Tensor]:
    if raws:
        return [
            oip.tensor(each.name, partial(oip_tensor.from_raw, each.datatype, each.shape, raw))
            for each, raw in zip(inputs, raws, strict=True)
        ]
    return [oip.tensor(each.name, partial(_read_contents, each)) for each in inputs]


def _read_contents(given: pb.InferTensor) -> NDArray[Any]:
    if given.datatype not in _CONTENTS:
        raise BadInput(f"Its datatype must be one of {', '.join(_CONTENTS)}; FP16 in raw_input_contents.")
    contents = getattr(given.contents, _CONTENTS[given.datatype])
    if given.datatype == oip_tensor.BYTES:
        return oip_tensor.from_strings(contents, given.shape)
    return elements.fill(given.shape, elements.from_numbers(contents, oip_tensor.dtype_of(given.datatype)))


def _value(parameter: pb.InferParameter) -> Any:
    chosen = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, chosen) if chosen else None
