"""Request and Response of GeneralModelService in brpc's JSON (json2pb, which is not protobuf's canonical JSON).

Names are the .proto's, fields at their default are left out, 64-bit integers are numbers, bytes are base64. Numbers
that JSON lacks: see json_array.encode. Arrays of numbers are passed on as text (Raw), since json_array reads and writes
them piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from ocr_serving.errors import BadInput
from ocr_serving.wire import elements, json_array
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire.fields import MAX_FIELDS, Buffer
from ocr_serving.wire.messages import Request
from ocr_serving.wire.tensor import STRING, TENSOR_CONTENT, PackedTensor, Tensor, layout_of

_ABSENT = Raw(b"")
_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class _Tensor(Struct, omit_defaults=True):
    """A Tensor message; as everywhere in this JSON, null is a field left out."""

    int64_data: Raw = _ABSENT
    float_data: Raw = _ABSENT
    int_data: Raw = _ABSENT
    float64_data: Raw = _ABSENT
    bool_data: Raw = _ABSENT
    data: list[str] | None = None
    elem_type: _Int32 | None = None
    shape: list[_Int32] | None = None
    lod: list[_Int32] | None = None
    name: str | None = None
    alias_name: str | None = None
    tensor_content: bytes | None = None


class _Request(Struct):
    tensor: Annotated[list[_Tensor], Meta(max_length=MAX_FIELDS)] | None = None
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
    tensors = tuple(_pack(tensor, f"$.tensor[{i}]") for i, tensor in enumerate(request.tensor or ()))
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


def _pack(tensor: _Tensor, place: str) -> PackedTensor:
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
        text = bytes(getattr(tensor, layout.field_name))
        array = _numbers(text, layout.dtype, f"{place}.{layout.field_name}")
        if array.size:
            raws[layout.field] = elements.to_bytes(array)
    return PackedTensor(message, raws)


def _numbers(text: bytes, dtype: np.dtype[Any], place: str) -> NDArray[Any]:
    """The elements in a field, which may be absent."""
    if text in (b"", b"null"):
        return np.empty(0, dtype)
    try:
        array = json_array.decode(text, dtype)
    except BadInput as error:
        raise BadInput(f"{str(error).removesuffix('.')} - at `{place}`.") from error
    if text.count(b"[") > 1:
        raise BadInput(f"Expected a flat array - at `{place}`.")
    return array


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
