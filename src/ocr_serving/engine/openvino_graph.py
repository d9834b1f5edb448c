"""Rewrites of PP-OCR graphs for OpenVINO: the same numbers with less work; docs/performance.md has what each gains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_serving.errors import ConfigError


def simplify_det(graph: Any) -> None:
    """Rewrite a det graph so that it takes less work, in place; but for rounding, it computes what it did."""
    for kind, rewrite in (
        ("Identity", lambda node: node.output(0).replace(node.input_value(0))),
        ("ConvolutionBackpropData", _replace_deconvolution),
        ("Convolution", _convolve_before_enlarging),
        ("Convolution", _convolve_before_concatenating),
        ("DepthToSpace", _join_depth_to_space),
        ("Add", _scale_once),
    ):
        for node in graph.get_ordered_ops():
            if node.get_type_name() == kind:
                rewrite(node)


def _replace_deconvolution(node: Any) -> None:
    """Turn a 2 x 2 transposed convolution with stride 2 into a 1 x 1 convolution and a depth-to-space.

    Its windows do not overlap, so out[o, 2y + i, 2x + j] = sum over c of in[c, y, x] * w[c, o, i, j]: one matrix
    product a pixel, which runs in bf16 on the matrix units, where OpenVINO runs the transposed form in float32.
    """
    from openvino import opset13 as ops

    weights = constant(node.input_value(1))  # (in, out, 2, 2)
    if weights is None or node.get_input_size() != 2 or weights.shape[2:] != (2, 2) or form(node) != _form_of(2, 0):
        return
    kernel = weights.transpose(1, 2, 3, 0).reshape(-1, weights.shape[0], 1, 1)
    product = _convolution(node.input_value(0), kernel, _form_of(1, 0), node.get_friendly_name())
    node.output(0).replace(ops.depth_to_space(product, "depth_first", 2).output(0))


def _convolve_before_enlarging(node: Any) -> None:
    """Take a 3 x 3 convolution of concatenated maps at half the size for those that are enlarged by repetition.

    Such a map is the same all over a block of 2 x 2, so most of the nine products of an output pixel meet the same
    input, and four are left. The four pixels around a corner of blocks need the same four blocks: one 2 x 2 convolution
    makes them, and depth-to-space puts them in their places.
    """
    from openvino import opset13 as ops

    kernel, parts = constant(node.input_value(1)), _concatenated(node)
    factors = [_enlarged_by(part) for part in parts]
    if kernel is None or kernel.shape[2:] != (3, 3) or form(node) != _form_of(1, 1) or max(factors, default=1) == 1:
        return
    # [pixel before or after the corner, block before or after it, tap of the 3 x 3 kernel]
    meets = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], np.float32)
    large, small = [], []
    for i, (part, weights, factor) in enumerate(zip(parts, _split(kernel, parts), factors, strict=True)):
        name = f"{node.get_friendly_name()}.{i}"
        if factor == 1:
            large.append(_convolution(part, weights, form(node), name))
        else:
            around = np.einsum("ocyx,aiy,bjx->oabcij", weights, meets, meets).reshape(-1, weights.shape[1], 2, 2)
            inner = _enlarge(part.get_node().input_value(0), factor // 2)
            small.append(_convolution(inner, around, _form_of(1, 1), name))
    pixels = ops.depth_to_space(reduce(ops.add, small), "depth_first", 2)
    inside = ops.slice(pixels, [1, 1], [-1, -1], [1, 1], [2, 3])  # corners at the border have pixels outside
    node.output(0).replace(reduce(ops.add, large, inside).output(0))


def _convolve_before_concatenating(node: Any) -> None:
    """Add convolutions of several maps up, in place of one convolution of all of them: so nothing is copied."""
    from openvino import opset13 as ops

    kernel, parts = constant(node.input_value(1)), _concatenated(node)
    if kernel is None or not parts:
        return
    each = [
        _convolution(part, weights, form(node), f"{node.get_friendly_name()}.{i}")
        for i, (part, weights) in enumerate(zip(parts, _split(kernel, parts), strict=True))
    ]
    node.output(0).replace(reduce(ops.add, each).output(0))


def _join_depth_to_space(node: Any) -> None:
    """Take what lies between two depth-to-spaces by 2, the second given, before the first, and join them to one by 4.

    That is a bias, a ReLU and a 1 x 1 convolution, as at the end of a det model; the convolution becomes one of the
    four pixels' channels at once, most of its weights 0, which costs less than moving the pixels twice.
    """
    from openvino import opset13 as ops

    chain = [node]
    for kind in ("Convolution", "Relu", "Add", "DepthToSpace"):
        before = chain[-1].input_value(0)
        if before.get_node().get_type_name() != kind or len(before.get_target_inputs()) != 1:
            return
        chain.append(before.get_node())
    _, conv, _, add, first = chain
    kernel, bias = constant(conv.input_value(1)), constant(add.input_value(1))
    by_2 = {"mode": "depth_first", "block_size": 2}
    if kernel is None or bias is None or any(n.get_attributes() != by_2 for n in (node, first)):
        return
    outputs, channels, *size = kernel.shape
    if size != [1, 1] or bias.shape != (1, channels, 1, 1) or form(conv) != _form_of(1, 0):
        return
    # Channels of the first are (c, i, j), of the second (o, k, l): pixel (2i + k, 2j + l) of the 4 x 4.
    each = np.einsum("oklc,ip,jq->oikjlcpq", kernel.reshape(-1, 2, 2, channels), np.eye(2), np.eye(2))
    weights = each.reshape(4 * outputs, 4 * channels, 1, 1).astype(np.float32)
    hidden = ops.relu(ops.add(first.input_value(0), bias.repeat(4, axis=1)))
    product = _convolution(hidden, weights, _form_of(1, 0), conv.get_friendly_name())
    node.output(0).replace(ops.depth_to_space(product, "depth_first", 4).output(0))


def _scale_once(node: Any) -> None:
    """Make a map plus its product with a factor for each channel a single product, with the factor plus one.

    So the squeeze-and-excitation blocks of the neck end: one pass over the map, not two.
    """
    from openvino import opset13 as ops

    for term, product in permutations(node.input_values()):
        if product.get_node().get_type_name() != "Multiply":
            continue
        for other, factor in permutations(product.get_node().input_values()):
            if other == term and list(factor.get_partial_shape())[2:] == [1, 1]:
                more = ops.add(factor, ops.constant(1, factor.get_element_type()))
                node.output(0).replace(ops.multiply(term, more).output(0))
                return


def cut_sigmoid(graph: Any) -> None:
    """Let a det graph end before its final sigmoid, in place: the output is the map's logits.

    Raises:
        ConfigError: the graph does not end in a sigmoid, as every PP-OCR det model does.
    """
    from openvino import opset13 as ops

    last = graph.outputs[0].get_node().input_value(0).get_node()
    if last.get_type_name() == "Convert":  # from float16
        last = last.input_value(0).get_node()
    if last.get_type_name() != "Sigmoid":
        raise ConfigError("This model does not end like a DB model, so it has no det_logits.")
    _end_in(graph, ops.convert(last.input_value(0), np.float32).output(0))


def cut_ctc_head(graph: Any, rows: int) -> Any:
    """Cut a rec graph in two before its class matrix.

    The graph given ends in the features, float32 (n, t, d), afterwards. The one returned goes on from a fixed number of
    `rows` of them, (rows, d), to the best class and its probability, (rows, 1) each.

    Raises:
        ConfigError: the graph does not end in MatMul, Add and Softmax, as every PP-OCR rec model does.
    """
    import openvino
    from openvino import opset13 as ops

    matrix, bias = _ctc_head(graph)
    classes, offsets = (node.input_value(1).get_node().get_data().astype(np.float32) for node in (matrix, bias))
    features = ops.parameter([rows, classes.shape[0]], np.float32)
    logits = ops.add(ops.matmul(features, classes, False, False), offsets)
    _end_in(graph, ops.convert(matrix.input_value(0), np.float32).output(0))
    return openvino.Model([ops.result(output) for output in _best(ops.softmax(logits, -1))], [features])


def end_in_best_classes(graph: Any) -> None:
    """Let a rec graph end in the best class, int32 (n, t), and its probability, float32 (n, t), in place.

    Raises:
        ConfigError: the graph does not end in MatMul, Add and Softmax, as every PP-OCR rec model does.
    """
    from openvino import opset13 as ops

    _ctc_head(graph)
    best = _best(graph.outputs[0].get_node().input_value(0))
    _end_in(graph, *(ops.squeeze(output, np.int64(-1)).output(0) for output in best))


def _ctc_head(graph: Any) -> tuple[Any, Any]:
    """The nodes that multiply with the class matrix and add its bias.

    Raises:
        ConfigError: see end_in_best_classes().
    """
    chain = [graph.outputs[0].get_node()]
    while chain[-1].get_type_name() != "MatMul" and chain[-1].get_input_size():
        chain.append(chain[-1].input_value(0).get_node())
    bias = next((node for node in chain if node.get_type_name() == "Add"), None)
    if chain[-1].get_type_name() != "MatMul" or bias is None or "Softmax" not in {n.get_type_name() for n in chain}:
        raise ConfigError("This model does not end like a CTC model, so it has no ctc_index and ctc_score.")
    return chain[-1], bias


def _best(probabilities: Any) -> list[Any]:
    """Index, int32, and value of the greatest along the last axis."""
    from openvino import opset13 as ops

    best = ops.topk(probabilities, np.int64(1), -1, "max", "none", index_element_type="i32")
    return [best.output(1), best.output(0)]


def constant(value: Any) -> NDArray[np.float32] | None:
    """What a value of the graph is, if it is a float32 constant."""
    node = value.get_node()
    data = node.get_data() if node.get_type_name() == "Constant" else None
    return data if data is not None and data.dtype == np.float32 else None


def form(convolution: Any) -> dict[str, Any]:
    """How it moves over its input."""
    attributes = convolution.get_attributes()
    return {key: attributes[key] for key in ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")}


def _form_of(stride: int, padding: int) -> dict[str, Any]:
    return {
        "strides": [stride] * 2,
        "pads_begin": [padding] * 2,
        "pads_end": [padding] * 2,
        "dilations": [1, 1],
        "auto_pad": "explicit",
    }


def _convolution(value: Any, kernel: NDArray[np.float32], form: dict[str, Any], name: str) -> Any:
    from openvino import opset13 as ops

    made = ops.convolution(value, np.ascontiguousarray(kernel), **form)
    made.set_friendly_name(name)
    return made


def _concatenated(convolution: Any) -> list[Any]:
    """The maps (n, c, h, w) that its input consists of, with known numbers of channels; empty if it is but one."""
    node = convolution.input_value(0).get_node()
    if node.get_type_name() != "Concat" or node.get_attributes()["axis"] != 1:
        return []
    parts = [port.get_source_output() for port in node.inputs()]
    return parts if all(part.get_partial_shape()[1].is_static for part in parts) else []


def _split(kernel: NDArray[np.float32], parts: Sequence[Any]) -> list[NDArray[np.float32]]:
    """The weights (out, in, h, w) that meet each of the maps."""
    channels = [part.get_partial_shape()[1].get_length() for part in parts]
    return np.split(kernel, np.cumsum(channels)[:-1], axis=1)


_REPEAT = {
    "mode": "nearest",
    "shape_calculation_mode": "scales",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
    "pads_begin": [0, 0, 0, 0],
    "pads_end": [0, 0, 0, 0],
}
"""How OpenVINO's Interpolate repeats each pixel a whole number of times."""


def _enlarged_by(value: Any) -> int:
    """How often each pixel of a map is repeated both ways, if that is an even number; else 1."""
    node = value.get_node()
    if node.get_type_name() != "Interpolate" or any(node.get_attributes()[key] != _REPEAT[key] for key in _REPEAT):
        return 1
    scales = constant(node.input_value(1))
    if scales is None or scales.shape != (4,) or scales[3] % 2 != 0 or (scales != [1, 1, scales[3], scales[3]]).any():
        return 1
    return int(scales[3])


def _enlarge(value: Any, factor: int) -> Any:
    """The map with each pixel repeated so often both ways."""
    from openvino import opset13 as ops

    if factor == 1:
        return value
    scales = np.array([1, 1, factor, factor], np.float32)
    return ops.interpolate(value, scales, axes=[0, 1, 2, 3], **_REPEAT)


def _end_in(graph: Any, *outputs: Any) -> None:
    """Make these values the only outputs of the graph."""
    from openvino import opset13 as ops

    for result in graph.get_results():
        graph.remove_result(result)
    graph.add_results([ops.result(output) for output in outputs])
