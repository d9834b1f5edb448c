"""Feeds as HttpClient takes them, which is more than Client does: lists of any nesting, single values, tuples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ocr_serving.compat import feeds
from ocr_serving.compat.feeds import BadCall
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.base import Array
from ocr_serving.wire import tensor


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


def as_array(value: Any, variable: Variable, batch: bool, *, is_chain: bool = False) -> Array:
    """An array as feeds.as_array makes it; a list fills [1 or its length] + the declared shape, one value that shape.

    For several models in a chain text stays text whatever the first one declares, as it does in feeds.as_array: det and
    rec chained take an image file's base64. One model's numbers are not told as text.

    Raises:
        BadCall: another number of elements, or text for numbers or the other way round.
    """
    if is_chain and isinstance(value, (str, bytes)):
        return feeds.as_array(value, variable, batch)
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
