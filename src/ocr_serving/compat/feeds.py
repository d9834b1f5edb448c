"""Feeds as the original's clients take them: what a caller may pass, as arrays of the types a model declares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ocr_serving.engine.base import is_image
from ocr_serving.errors import BadInput
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.base import Array
from ocr_serving.wire import tensor
from ocr_serving.wire.tensor import Tensor

Converter = Callable[[Any, Variable, bool], Array]
"""Makes the array to send of a value: see as_array."""

LOD_SUFFIX = ".lod"
"""A feed "x.lod" holds the level-of-detail offsets of the feed "x"."""


class BadCall(BadInput, ValueError):
    """A call that cannot be made as it is written; a ValueError as well, which is what the original raised."""


def as_mapping(feed: Any, variables: Sequence[Variable]) -> Mapping[str, Any]:
    """The feed as alias -> value.

    Args:
        feed: such a mapping, a list of one, or the list that is the value of the only input.
        variables: the model's inputs.

    Raises:
        BadCall: anything else.
    """
    if feed is None:
        raise BadCall("You should specify feed for prediction")
    if isinstance(feed, Mapping):
        return feed
    if not isinstance(feed, (list, tuple)):
        raise BadCall("Feed only accepts dict and list of dict")
    if len(feed) == 1 and isinstance(feed[0], Mapping):
        return feed[0]
    if len(variables) != 1:
        raise BadCall("input is a list, but we got 0 or 2+ feed_var, don`t know how to divide the feed list")
    return {variables[0].alias: feed}


def tensors(
    feed: Mapping[str, Any], variables: Sequence[Variable], batch: bool, convert: Converter | None = None
) -> list[Tensor]:
    """The feed as what is sent, in the order of the variables; inputs that the feed leaves out are left to the server.

    Args:
        feed: alias -> value, and alias.lod -> offsets.
        variables: the model's inputs.
        batch: whether values have their batch dimension.
        convert: makes an array of a value; None takes as_array.

    Raises:
        BadCall: an unknown name, or a value that cannot be converted.
    """
    known = {variable.alias for variable in variables}
    for name in feed:
        if not isinstance(name, str) or name.removesuffix(LOD_SUFFIX) not in known:
            raise BadCall(f"Wrong feed name: {name}.")
    return [
        Tensor(
            variable.name,
            variable.alias,
            (convert or as_array)(feed[variable.alias], variable, batch),
            _offsets(feed.get(variable.alias + LOD_SUFFIX, ()), variable),
        )
        for variable in variables
        if variable.alias in feed
    ]


def as_array(value: Any, variable: Variable, batch: bool) -> Array:
    """A value with its batch dimension, of the type that the variable declares; the caller's value stays as it is.

    A uint8 image (n, h, w, 3) keeps its type where the model takes channels first: the engine normalises it. A string
    stays one, too, whatever is declared: a server with det and rec chained takes an image file's base64 where det alone
    takes an array.

    Args:
        value: array, number, string, or list of as many elements as the declared shape has.
        variable: the input.
        batch: whether the value has its batch dimension; otherwise one is put in front.

    Raises:
        BadCall: a list does not fill the declared shape, or cannot become the declared type.
    """
    if variable.elem_type == tensor.STRING or isinstance(value, (str, bytes)):
        return _strings(value, variable)
    if isinstance(value, list) and not variable.is_lod and len(value) != math.prod(variable.shape):
        raise _not_match(variable)
    array = fill(value, variable) if isinstance(value, list) and batch else _regular(value, variable)
    if not batch:
        array = array[np.newaxis]
    dtype = tensor.dtype_of(variable.elem_type)
    if array.dtype == dtype or (is_image(array) and variable.shape[:1] in ((), (3,))):
        return array
    if dtype is None or array.dtype.kind not in "biuf":
        raise BadCall(f"Feed {variable.alias} of type {array.dtype} cannot become the type that the model declares.")
    return array.astype(dtype)


def fill(values: Sequence[Any], variable: Variable) -> Array:
    """A list, nested or not, as an array of the declared shape.

    Raises:
        BadCall: it has another number of elements.
    """
    array = _regular(values, variable)
    if array.size != math.prod(variable.shape):
        raise _not_match(variable)
    return array.reshape(variable.shape)


def _regular(value: Any, variable: Variable) -> Array:
    """The value as an array; BadCall where lists in it differ in length."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise _not_match(variable) from error


def _offsets(value: Any, variable: Variable) -> list[int]:
    try:
        return [int(offset) for offset in value]
    except (TypeError, ValueError) as error:
        raise BadCall(f"Feed {variable.alias}{LOD_SUFFIX} must be a list of whole numbers.") from error


def _not_match(variable: Variable) -> BadCall:
    return BadCall(f"The shape of feed tensor {variable.alias} not match.")


def _strings(value: Any, variable: Variable) -> Array:
    """Strings in the declared shape; a string's bytes are UTF-8."""
    array = _regular([value] if isinstance(value, (str, bytes)) else value, variable)
    if array.dtype.kind not in "SU":
        raise BadCall(f"Feed {variable.alias} must be a string.")
    return array.reshape(variable.shape) if array.size == math.prod(variable.shape) else array
