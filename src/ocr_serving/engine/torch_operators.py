"""The operators of PP-OCR's models as PyTorch calculates them, as ONNX defines them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ocr_serving.errors import ConfigError

Form = Mapping[str, Any]
"""The attributes of a node and, as OPSET, the version of ONNX's operator set, on which meanings depend."""
OPSET = "opset"


def _convolution(form: Form) -> Callable[..., Tensor]:
    strides, dilations, groups = _pair(form, "strides"), _pair(form, "dilations"), form.get("group", 1)
    as_product = groups == 1 and dilations == [1, 1]

    def calculate(image: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        image, padding = _padded(image, kernel.shape[2:], form, 0.0)
        if not as_product:
            return functional.conv2d(image, kernel, bias, strides, padding, dilations, groups)
        return _product(_pad(image, padding * 2, 0.0), kernel, bias, strides)

    return calculate


def _product(image: Tensor, kernel: Tensor, bias: Tensor | None, strides: Sequence[int]) -> Tensor:
    """A convolution (without padding) as a matrix product: cuBLAS needs no preparation for a new shape."""
    windows = image.unfold(2, kernel.shape[2], strides[0]).unfold(3, kernel.shape[3], strides[1])
    rows, _, height, width = windows.shape[:4]
    columns = windows.permute(0, 1, 4, 5, 2, 3).reshape(rows, -1, height * width)
    matrix = kernel.flatten(1).expand(rows, -1, -1)
    found = torch.bmm(matrix, columns) if bias is None else torch.baddbmm(bias[:, None], matrix, columns)
    return found.view(rows, -1, height, width)


def _transposed_convolution(form: Form) -> Callable[..., Tensor]:
    refuse_if(_pads_itself(form) or any(form.get("output_padding", [])) or "output_shape" in form, "ConvTranspose")

    def calculate(image: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.conv_transpose2d(
            image, kernel, bias, _pair(form, "strides"), groups=form.get("group", 1), dilation=_pair(form, "dilations")
        )

    return calculate


def _max_pool(form: Form) -> Callable[..., Tensor]:
    kernel = form["kernel_shape"]

    def calculate(image: Tensor) -> Tensor:
        image, padding = _padded(image, kernel, form, float("-inf"))
        return functional.max_pool2d(
            image, kernel, _pair(form, "strides"), padding, _pair(form, "dilations"), bool(form.get("ceil_mode", 0))
        )

    return calculate


def _average_pool(form: Form) -> Callable[..., Tensor]:
    refuse_if(_pads_itself(form) or _pair(form, "dilations") != [1, 1], "AveragePool")
    ceil = bool(form.get("ceil_mode", 0))
    return lambda image: functional.avg_pool2d(image, form["kernel_shape"], _pair(form, "strides"), ceil_mode=ceil)


def _batch_norm(form: Form) -> Callable[..., Tensor]:
    return lambda image, scale, bias, mean, variance: functional.batch_norm(
        image, mean, variance, scale, bias, eps=form.get("epsilon", 1e-5)
    )


def _resize(form: Form) -> Callable[..., Tensor]:
    """Repeats each pixel a whole number of times, which is what these ways of rounding come to."""
    nearest = form.get("nearest_mode", "round_prefer_floor")
    rounding = {"asymmetric": ["floor"], "half_pixel": ["round_prefer_floor", "round_prefer_ceil"]}
    repeats = nearest in rounding.get(form.get("coordinate_transformation_mode", "half_pixel"), [])
    refuse_if(form.get("mode", "nearest") != "nearest" or not repeats or form[OPSET] < 11, "Resize")

    def calculate(image: Tensor, _: Tensor | None, scales: Tensor) -> Tensor:
        factors = [int(scale) for scale in scales]
        if factors[:2] != [1, 1] or min(factors) < 1 or factors != scales.tolist():
            raise ValueError(f"Resize by {scales.tolist()}")
        return image.repeat_interleave(factors[2], 2).repeat_interleave(factors[3], 3)

    return calculate


def _reduce_mean(form: Form) -> Callable[..., Tensor]:
    keep = bool(form.get("keepdims", 1))
    return lambda value, axes=None: value.mean(_axes(form, axes) or list(range(value.dim())), keep)


def _softmax(form: Form) -> Callable[..., Tensor]:
    if form[OPSET] >= 13:
        return lambda value: value.softmax(form.get("axis", -1))
    return lambda value: value.flatten(form.get("axis", 1)).softmax(-1).view(value.shape)


def _hard_sigmoid(form: Form) -> Callable[..., Tensor]:
    alpha, beta = form.get("alpha", 0.2), form.get("beta", 0.5)
    return lambda value: (value * alpha + beta).clamp_(0, 1)


def _reshape(form: Form) -> Callable[..., Tensor]:
    refuse_if(form.get("allowzero", 0) != 0, "Reshape")
    return lambda value, shape: value.reshape(
        [value.shape[i] if side == 0 else side for i, side in enumerate(shape.tolist())]
    )


def _squeeze(form: Form) -> Callable[..., Tensor]:
    def calculate(value: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = _axes(form, axes)
        return value.squeeze() if chosen is None else value.squeeze(tuple(chosen))

    return calculate


def _unsqueeze(form: Form) -> Callable[..., Tensor]:
    def calculate(value: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = _axes(form, axes) or []
        rank = value.dim() + len(chosen)
        for axis in sorted(axis % rank for axis in chosen):
            value = value.unsqueeze(axis)
        return value

    return calculate


def _slice(_: Form) -> Callable[..., Tensor]:
    def calculate(
        value: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        chosen = range(len(starts)) if axes is None else axes.tolist()
        strides = [1] * len(starts) if steps is None else steps.tolist()
        parts = [slice(None)] * value.dim()
        for axis, start, end, stride in zip(chosen, starts.tolist(), ends.tolist(), strides, strict=True):
            parts[axis] = slice(start, end, stride)
        return value[tuple(parts)]

    return calculate


def _concat(form: Form) -> Callable[..., Tensor]:
    return lambda *values: torch.cat(values, form["axis"])


def _transpose(form: Form) -> Callable[..., Tensor]:
    return lambda value: value.permute(form.get("perm", list(range(value.dim()))[::-1]))


def _shape(form: Form) -> Callable[..., Tensor]:
    return lambda value: torch.tensor(value.shape[form.get("start", 0) : form.get("end")])


def _as_is(calculate: Callable[..., Tensor]) -> Callable[[Form], Callable[..., Tensor]]:
    """Of an operator without attributes."""
    return lambda _: calculate


OPERATORS: Mapping[str, Callable[[Form], Callable[..., Tensor]]] = {
    "Add": _as_is(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Div": _as_is(lambda a, b: torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")),
    "Erf": _as_is(torch.erf),
    "GlobalAveragePool": _as_is(lambda image: image.mean((2, 3), True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _as_is(functional.hardswish),
    "Identity": _as_is(lambda value: value),
    "MatMul": _as_is(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _as_is(torch.mul),
    "Pow": _as_is(torch.pow),
    "ReduceMean": _reduce_mean,
    "Relu": _as_is(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Sigmoid": _as_is(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": _as_is(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _as_is(torch.sub),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operator -> what makes a function of its attributes: from a node's inputs to its output."""


def _padded(image: Tensor, kernel: Sequence[int], form: Form, value: float) -> tuple[Tensor, list[int]]:
    """The image with what must be padded on one side alone, and the padding that all sides of an axis have alike."""
    top, left, bottom, right = _pads(image, kernel, form)
    if (top, left) == (bottom, right):
        return image, [top, left]
    return _pad(image, (top, left, bottom, right), value), [0, 0]


def _pad(image: Tensor, pads: Sequence[int], value: float) -> Tensor:
    """The image with so much of a value at its top, left, bottom and right."""
    top, left, bottom, right = pads
    return functional.pad(image, (left, right, top, bottom), value=value) if any(pads) else image


def _pads(image: Tensor, kernel: Sequence[int], form: Form) -> list[int]:
    """Top, left, bottom and right."""
    kind = form.get("auto_pad", "NOTSET")
    if kind in ("NOTSET", "VALID"):
        return list(form.get("pads", [0] * 4))
    smaller, larger = [], []
    for side, window, stride, dilation in zip(
        image.shape[2:], kernel, _pair(form, "strides"), _pair(form, "dilations"), strict=True
    ):
        lacking = max(0, (-(-side // stride) - 1) * stride + (window - 1) * dilation + 1 - side)
        smaller.append(lacking // 2)
        larger.append(lacking - lacking // 2)
    return smaller + larger if kind == "SAME_UPPER" else larger + smaller


def _pads_itself(form: Form) -> bool:
    return any(form.get("pads", [])) or form.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _pair(form: Form, name: str) -> list[int]:
    return list(form.get(name, [1, 1]))


def _axes(form: Form, given: Tensor | None) -> list[int] | None:
    """An attribute at first, an input since ONNX's operator set 13 or 18; None: there is neither."""
    return form.get("axes") if given is None else given.tolist()


def refuse_if(condition: bool, what: str) -> None:
    """Raise ConfigError where a model uses an operator in a way that is not known here."""
    if condition:
        raise ConfigError(f"PyTorch cannot run this model: it uses {what} in a way that is not known here.")
