"""Request and Response of GeneralModelService in brpc's JSON (json2pb, which is not protobuf's canonical JSON).

Names are the .proto's, fields at their default are left out, 64-bit integers are numbers, bytes are base64. Numbers
that JSON lacks: see json_array.encode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ocr_serving.errors import BadInput
from ocr_serving.wire import elements, json_array
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.messages import Request
from ocr_serving.wire.tensor import STRING, TENSOR_CONTENT, PackedTensor, Tensor, layout_of

_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class _Tensor(Struct, omit_defaults=True):
    """A Tensor message; as everywhere in this JSON, null is a field left out. _unpack() puts Raw where numbers are."""

    int64_data: list[int] | None = None
    float_data: list[float] | None = None
    int_data: list[int] | None = None
    float64_data: list[float] | None = None
    bool_data: list[bool] | None = None
    data: list[str] | None = None
    elem_type: _Int32 | None = None
    shape: list[_Int32] | None = None
    lod: list[_Int32] | None = None
    name: str | None = None
    alias_name: str | None = None
    tensor_content: bytes | None = None


class _Request(Struct):
    tensor: list[_Tensor] | None = None
    fetch_var_names: list[str] | None = None
    log_id: int | None = None


class _ModelOutput(Struct, omit_defaults=True):
    tensor: list[_Tensor] = msgspec.field(default_factory=list)
    engine_name: str = ""


class _Response(Struct, omit_defaults=True):
    outputs: list[_ModelOutput]
    profile_time: list[int] = msgspec.field(default_factory=list)


_DECODER = msgspec.json.Decoder(_Request, strict=False)  # see json_array
_ENCODER = msgspec.json.Encoder()


def decode_request(body: Buffer) -> Request:
    """Read a Request; no body at all is one without tensors. Unknown fields are passed over.

    Raises:
        BadInput: no JSON, or a field of another type; the message says where.
    """
    if not len(body):
        return Request((), ())
    try:
        request = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise BadInput(f"{error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("Invalid json format") from error
    tensors = tuple(map(_pack, request.tensor or ()))
    return Request(tensors, tuple(request.fetch_var_names or ()))


def encode_request(tensors: Sequence[Tensor], fetch: Sequence[str], log_id: int) -> bytes:
    """A Request; see messages.encode_request.

    Raises:
        BadInput: an array of a type that cannot be sent.
    """
    return _ENCODER.encode(_Request(list(map(_unpack, tensors)), list(fetch), log_id))


def encode_response(engine_name: str, runs: Sequence[Sequence[Tensor]], profile_time: Sequence[int]) -> bytes:
    """A Response; see messages.encode_response.

    Raises:
        BadInput: an array of a type that cannot be sent.
    """
    outputs = [_ModelOutput(list(map(_unpack, run)), engine_name) for run in runs]
    return _ENCODER.encode(_Response(outputs, list(profile_time)))


def _pack(tensor: _Tensor) -> PackedTensor:
    elem_type = tensor.elem_type or 0
    message = pb.Tensor(
        elem_type=elem_type, shape=tensor.shape, lod=tensor.lod, name=tensor.name, alias_name=tensor.alias_name
    )
    raws: dict[int, Buffer] = {}
    if tensor.tensor_content:
        raws[TENSOR_CONTENT] = tensor.tensor_content
    if elem_type == STRING:
        message.data.extend(tensor.data or ())
    elif (layout := layout_of(elem_type)) and layout.field != TENSOR_CONTENT:
        values = getattr(tensor, layout.field_name)
        if values:
            raws[layout.field] = elements.to_bytes(json_array.from_list(values, layout.dtype))
    return PackedTensor(message, raws)


def _unpack(tensor: Tensor) -> _Tensor:
    form = _Tensor(
        shape=list(tensor.array.shape) or None,
        lod=list(tensor.lod) or None,
        name=tensor.name or None,
        alias_name=tensor.alias or None,
    )
    if tensor.array.dtype.kind in "SU":
        form.elem_type, form.data = STRING, tensor.strings() or None
        return form
    layout = tensor.layout()
    form.elem_type = layout.elem_type or None
    if not tensor.array.size:
        return form
    array = tensor.array.astype(layout.dtype, copy=False)
    if layout.field == TENSOR_CONTENT:
        form.tensor_content = array.tobytes()
    else:
        setattr(form, layout.field_name, json_array.encode(array))
    return form
