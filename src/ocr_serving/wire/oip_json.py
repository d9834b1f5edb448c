"""Inference over HTTP in the Open Inference Protocol v2: JSON, and arrays in binary after it.

    {"id": ..., "inputs": [{"name", "datatype", "shape", "data" or "parameters": {"binary_data_size"}}], "outputs": ...}

The binary tensor extension puts the arrays of the inputs (outputs) that have a binary_data_size behind the JSON, in its
order; a header says where the JSON ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from ocr_serving.errors import BadInput
from ocr_serving.wire import elements, json_array, oip, oip_tensor
from ocr_serving.wire.fields import MAX_FIELDS, Buffer
from ocr_serving.wire.oip import OipRequest
from ocr_serving.wire.tensor import Tensor

_BINARY_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"


class _Input(Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: Raw = Raw(b"")


class _Output(Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(Struct):
    inputs: Annotated[list[_Input], Meta(max_length=MAX_FIELDS)]
    id: str = ""
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_Request)
_ENCODER = msgspec.json.Encoder()


def decode_request(body: memoryview, json_size: int | None) -> OipRequest:
    """Read a request.

    Args:
        body: JSON, and in the binary extension the arrays after it.
        json_size: bytes of the JSON; None means all.

    Raises:
        BadInput: it is none; the message says where.
    """
    if json_size is not None and not 0 <= json_size <= len(body):
        raise BadInput("Inference-Header-Content-Length is larger than the body.")
    try:
        request = _DECODER.decode(body[:json_size])
    except msgspec.ValidationError as error:
        raise BadInput(f"{error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("The body is not valid JSON in UTF-8.") from error
    parameters = request.parameters or {}
    outputs = request.outputs or []
    for output in outputs:
        oip.check_parameters(output.parameters or ())
    return OipRequest(
        id=request.id,
        tensors=tuple(_read_inputs(request.inputs, body[json_size:] if json_size is not None else body[:0])),
        fetch=tuple(output.name for output in outputs),
        seconds=oip.seconds(parameters),
        in_binary={o.name: bool(o.parameters[_BINARY]) for o in outputs if o.parameters and _BINARY in o.parameters},
        all_binary=bool(parameters.get(_ALL_BINARY)),
    )


def encode_response(model: str, version: str, request: OipRequest, tensors: Iterable[Tensor]) -> list[Buffer]:
    """The answer to a request: its JSON, then the arrays that are wanted in binary, if any.

    Raises:
        BadInput: an array of a type that cannot be sent.
    """
    outputs = []
    arrays: list[Buffer] = []
    for tensor in tensors:
        datatype = oip_tensor.datatype_of(tensor.array.dtype)
        output: dict[str, Any] = {"name": tensor.alias, "datatype": datatype, "shape": tensor.array.shape}
        if request.in_binary.get(tensor.alias, request.all_binary):
            arrays.append(oip_tensor.to_raw(tensor))
            output["parameters"] = {_BINARY_SIZE: len(arrays[-1])}
        else:
            output["data"] = oip_tensor.to_json(tensor)
        outputs.append(output)
    response: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id:
        response["id"] = request.id
    return [_ENCODER.encode(response), *arrays]


def _read_inputs(inputs: Iterable[_Input], binary: memoryview) -> list[Tensor]:
    tensors = []
    for each in inputs:
        parameters = each.parameters or {}
        oip.check_parameters(parameters)
        if _BINARY_SIZE in parameters:
            size = parameters[_BINARY_SIZE]
            if not isinstance(size, int) or not 0 <= size <= len(binary):
                raise BadInput(f"Input {each.name}: {_BINARY_SIZE} is no size of what follows the JSON.")
            content, binary = binary[:size], binary[size:]
            tensors.append(oip.tensor(each.name, partial(oip_tensor.from_raw, each.datatype, each.shape, content)))
        else:
            tensors.append(oip.tensor(each.name, partial(_read_data, each)))
    if binary:
        raise BadInput(f"{len(binary)} bytes follow the JSON that belong to no input.")
    return tensors


def _read_data(given: _Input) -> NDArray[Any]:
    data = bytes(given.data)
    if not data:
        raise BadInput(f"It has neither data nor {_BINARY_SIZE}.")
    if given.datatype == oip_tensor.BYTES:
        try:
            strings = _strings(msgspec.json.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadInput(
                "Its data must be an array of strings in UTF-8, flat or nested, but not too deeply."
            ) from error
        return oip_tensor.from_strings(strings, given.shape)
    return elements.fill(given.shape, json_array.decode(data, oip_tensor.dtype_of(given.datatype)))


def _strings(data: Any) -> list[bytes]:
    """The strings of a JSON array, which may be nested; each is looked at once, however deep it lies."""
    strings = []
    levels = [iter([data])]
    while levels:
        for each in levels[-1]:
            if isinstance(each, list):
                levels.append(iter(each))
                break
            if not isinstance(each, str):
                raise BadInput("Its data must be an array of strings, flat or nested.")
            strings.append(each.encode())
        else:
            levels.pop()
    return strings
