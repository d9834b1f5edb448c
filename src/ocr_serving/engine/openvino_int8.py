"""Det graphs in 8 bits for OpenVINO: which convolutions, how their inputs are rounded, and the rewritten graph.

Inputs are rounded to uint8 in steps fixed beforehand, weights to int8 with a step for each output channel. Channels of
an input that differ in size are brought half way together first, their weights the other way: SmoothQuant, Xiao et al.,
ICML 2023. What the rounding of a layer adds to its output on average is taken off again: Nagel et al., Data-Free
Quantization through Weight Equalization and Bias Correction, ICCV 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ocr_serving.engine.int8_layers import Layer
from ocr_serving.engine.openvino_graph import constant, form
from ocr_serving.engine.rounding import EXACT_PAIR, LARGEST_WEIGHT, weight_steps

_EQUALISATION = 0.5
"""Exponent of a channel's size in its scale; 0 leaves channels as they are, 1 makes them all alike."""
_LEAST_SIZE = 1e-3
"""Of a channel, as a share of the largest: smaller ones are mostly noise."""
_STEPS = 255
"""From the least to the greatest uint8."""
_ALL_BUT_CHANNELS = np.array([0, 2, 3])


def fit(graph: Any, layers: Sequence[Layer]) -> bool:
    """Whether the layers are convolutions of this simplified det graph (openvino_graph.simplify_det)."""
    nodes = _by_name(graph)
    return all(_fits(layer, nodes.get(layer.name)) for layer in layers)


def quantize(graph: Any, layers: Sequence[Layer], is_bf16: bool) -> None:
    """Run these convolutions, which fit the graph, in 8 bits, in place.

    Args:
        graph: simplified (openvino_graph.simplify_det).
        layers: which, and how.
        is_bf16: whether all else is computed in bf16.
    """
    from openvino import opset13 as ops

    if is_bf16:
        layers = [msgspec.structs.replace(layer, scale=_inverse_bf16(layer.scale)) for layer in layers]
    nodes = _by_name(graph)
    rounded: dict[tuple[str, int], Any] = {}  # an input that several convolutions share is rounded once
    for layer in layers:
        node = nodes[layer.name]
        source = node.input_value(0)
        key = source.get_node().get_name(), source.get_index()
        if key not in rounded:
            is_shared = len(source.get_target_inputs()) > 1
            rounded[key] = (_scaled_and_rounded if is_bf16 and is_shared else _rounded)(source, layer)
        product = _product(rounded[key], node, layer)
        node.output(0).replace(ops.subtract(product, _by_channel(layer.error)).output(0))
    graph.validate_nodes_and_infer_types()


def _by_name(graph: Any) -> dict[str, Any]:
    return {node.get_friendly_name(): node for node in graph.get_ordered_ops()}


def _fits(layer: Layer, node: Any) -> bool:
    kernel = None if node is None or node.get_type_name() != "Convolution" else constant(node.input_value(1))
    return kernel is not None and kernel.shape[:2] == (len(layer.error), len(layer.scale))


def calibrate(graph: Any, images: Sequence[NDArray[np.float32]]) -> tuple[Layer, ...]:
    """The layers of a simplified det graph that can run in 8 bits, rounded as suits these images.

    They are its convolutions but for depthwise ones, which gain nothing; those before the first of these, where a flat
    background is rounded the same way all over the map; and those of a single pixel, which take no time.

    Args:
        graph: stays as it is.
        images: inputs of the graph, float32 (1, 3, h, w), at least one; the less alike the better.
    """
    from openvino import opset13 as ops

    names = [node.get_friendly_name() for node in _candidates(graph)]

    def extremes(node: Any) -> list[Any]:
        return [reduce(node.input_value(0), _ALL_BUT_CHANNELS) for reduce in (ops.reduce_min, ops.reduce_max)]

    seen = _measure(graph, names, extremes, images)
    layers = {name: _layer(name, low.min(0), high.max(0)) for name, (low, high) in zip(names, seen, strict=True)}

    def error(node: Any) -> list[Any]:
        layer = layers[node.get_friendly_name()]
        product = _product(_rounded(node.input_value(0), layer), node, layer)
        return [ops.reduce_mean(ops.subtract(product, node), _ALL_BUT_CHANNELS)]

    errors = _measure(graph, names, error, images)
    return tuple(
        msgspec.structs.replace(layers[name], error=tuple(each.mean(0).tolist()))
        for name, [each] in zip(names, errors, strict=True)
    )


def _candidates(graph: Any) -> list[Any]:
    nodes = graph.get_ordered_ops()
    stem = _ancestors(next((node for node in nodes if node.get_type_name() == "GroupConvolution"), None))
    return [
        node
        for node in nodes
        if node.get_type_name() == "Convolution"
        and constant(node.input_value(1)) is not None
        and node.get_name() not in stem
        and node.input_value(0).get_partial_shape()[2] != 1
    ]


def _ancestors(node: Any) -> set[str]:
    """Names of all nodes that a node depends on."""
    found: set[str] = set()
    left = [node] if node is not None else []
    while left:
        for port in left.pop().inputs():
            source = port.get_source_output().get_node()
            if source.get_name() not in found:
                found.add(source.get_name())
                left.append(source)
    return found


def _measure(
    graph: Any, names: Sequence[str], values: Callable[[Any], list[Any]], images: Sequence[NDArray[np.float32]]
) -> list[list[NDArray[np.float32]]]:
    """For each named node the values (c,) that are made of it, each over all images: (images, c)."""
    import openvino
    from openvino import opset13 as ops

    clone = graph.clone()
    nodes = _by_name(clone)
    wanted = [values(nodes[name]) for name in names]
    model = openvino.Model([ops.result(value) for group in wanted for value in group], clone.get_parameters())
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    runs = [[np.array(value) for value in compiled([image]).values()] for image in images]
    columns = iter([np.stack(column) for column in zip(*runs, strict=True)])
    return [[next(columns) for _ in group] for group in wanted]


def _layer(name: str, low: NDArray[np.float32], high: NDArray[np.float32]) -> Layer:
    """How an input is rounded whose channels have had these extremes, (in,) each."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    size = np.maximum(-low, high)
    scale = np.maximum(size / max(size.max(), np.finfo(np.float32).tiny), _LEAST_SIZE) ** _EQUALISATION
    least, most = float((low / scale).min()), float((high / scale).max())
    below = math.ceil(-least / (most - least) * _STEPS) if most > least else 0
    step = max(most / (_STEPS - below) if below < _STEPS else 0, -least / below if below else 0) or 1.0
    return Layer(name, tuple(scale.tolist()), -below * step, (_STEPS - below) * step, ())


def _rounded(source: Any, layer: Layer) -> Any:
    """The input of a convolution, in steps."""
    from openvino import opset13 as ops

    scale, ends = _by_channel(layer.scale), (np.float32(layer.low), np.float32(layer.high))
    return ops.fake_quantize(source, *(end * scale for end in ends), *ends, _STEPS + 1)


def _scaled_and_rounded(source: Any, layer: Layer) -> Any:
    """The same, scaled by a convolution with the rounding in it.

    An input that only this convolution takes is rounded by the layer that makes it. Others, in bf16, OpenVINO would
    bring to f32 and into another order of channels first, round, and bring back.
    """
    from openvino import opset13 as ops

    factors = (np.float32(1) / _by_channel(layer.scale)).reshape(-1, 1, 1, 1, 1)
    scaled = ops.group_convolution(source, factors, [1, 1], [0, 0], [0, 0], [1, 1])
    ends = np.float32(layer.low), np.float32(layer.high)
    return ops.fake_quantize(scaled, *ends, *ends, _STEPS + 1)


def _inverse_bf16(scale: Sequence[float]) -> tuple[float, ...]:
    """The scales, each the inverse of a number of bf16: dividing by it is a product that bf16 has no error in."""
    factors = 1 / np.array(scale, np.float32)
    upper_half = (factors.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)
    return tuple((1 / upper_half.view(np.float32)).tolist())


def _product(rounded: Any, node: Any, layer: Layer) -> Any:
    """The convolution of a rounded input, with weights in steps, too."""
    from openvino import opset13 as ops

    weights = constant(node.input_value(1))
    assert weights is not None
    kernel = weights * _by_channel(layer.scale)
    most = LARGEST_WEIGHT * weight_steps(kernel, EXACT_PAIR).reshape(-1, 1, 1, 1)
    steps = ops.fake_quantize(ops.constant(kernel), -most, most, -most, most, 2 * LARGEST_WEIGHT + 1)
    return ops.convolution(rounded, steps, **form(node))


def _by_channel(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)
