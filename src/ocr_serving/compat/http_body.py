"""The bodies of HTTP and gRPC calls: what HttpClient sends for a feed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ocr_serving.compat import feeds
from ocr_serving.compat.feeds import BadCall
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.base import Array
from ocr_serving.wire import messages, tensor
from ocr_serving.wire.tensor import Tensor

_JSON_FIELDS = {0: "int64_data", 1: "float_data", 2: "int_data", 3: "float64_data", 9: "bool_data"}
"""elem_type -> the field of a Tensor in JSON that holds its numbers; the others go as base64 in tensor_content."""


def as_mapping(feed: Any, variables: Sequence[Variable]) -> Mapping[str, Any]:
    """The feed as alias -> value; beyond feeds.as_mapping, one value, or a list of as many as there are inputs.

    Raises:
        BadCall: anything else.
    """
    if isinstance(feed, (str, bytes, np.ndarray)) and len(variables) == 1:
        return {variables[0].alias: feed}
    if isinstance(feed, (list, tuple)) and len(feed) == len(variables) > 1:
        return {variable.alias: value for variable, value in zip(variables, feed, strict=True)}
    return feeds.as_mapping(feed, variables)


def tensors(feed: Mapping[str, Any], variables: Sequence[Variable], batch: bool) -> list[Tensor]:
    """The feed as what is sent: see feeds.tensors."""
    return feeds.tensors(feed, variables, batch, _as_array)


def proto(sent: Sequence[Tensor], fetch: Sequence[str], log_id: int) -> bytes:
    """The Request message."""
    return b"".join(messages.encode_request(sent, fetch, log_id))


def json(sent: Sequence[Tensor], fetch: Sequence[str], log_id: int) -> bytes:
    """The Request in brpc's JSON."""
    request = {"fetch_var_names": list(fetch), "log_id": log_id, "tensor": [_json_tensor(each) for each in sent]}
    return msgspec.json.encode(request)


def _as_array(value: Any, variable: Variable, batch: bool) -> Array:
    """An array as feeds.as_array makes it; a list fills [1 or its length] + the declared shape, one value that shape.

    Raises:
        BadCall: another number of elements, or text for numbers or the other way round.
    """
    if isinstance(value, np.ndarray) and value.ndim and variable.elem_type != tensor.STRING:
        return feeds.as_array(value, variable, batch)
    shape = variable.shape
    if isinstance(value, (list, tuple)):
        shape = (len(value) if batch else 1, *shape)
    try:
        array = np.array(value).reshape(shape)
    except ValueError as error:
        raise BadCall(f"The shape of feed tensor {variable.alias} not match.") from error
    is_text = array.dtype.kind in "SU"
    if variable.elem_type == tensor.STRING:
        if not is_text:
            raise BadCall("feedvar is string-type,feed can`t be a single int or others.")
        return array
    if is_text:
        raise BadCall("feedvar is not string-type,feed can`t be a single string.")
    return feeds.as_array(array, variable, batch=True)


def _json_tensor(sent: Tensor) -> dict[str, Any]:
    elem_type = tensor.elem_type_of(sent.array.dtype)
    fields: dict[str, Any] = {
        "shape": sent.array.shape,
        "elem_type": elem_type,
        "name": sent.name,
        "alias_name": sent.alias,
    }
    if sent.lod:
        fields["lod"] = sent.lod
    if elem_type in _JSON_FIELDS:
        fields[_JSON_FIELDS[elem_type]] = sent.array.ravel().tolist()
    elif elem_type == tensor.STRING:
        fields["data"] = [text.decode() if isinstance(text, bytes) else text for text in sent.array.ravel().tolist()]
    else:
        fields["tensor_content"] = base64.b64encode(sent.array.tobytes()).decode("ascii")
    return fields
