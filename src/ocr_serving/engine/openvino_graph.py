"""Rewrites of PP-OCR graphs for OpenVINO: the same numbers with less work; docs/performance.md has what each gains."""

from __future__ import annotations

from typing import Any

import numpy as np

from ocr_serving.errors import ConfigError


def replace_deconvolutions(graph: Any) -> None:
    """Turn every 2 x 2 transposed convolution with stride 2 into a 1 x 1 convolution and a depth-to-space, in place.

    Their windows do not overlap, so out[o, 2y + i, 2x + j] = sum over c of in[c, y, x] * w[c, o, i, j]: one matrix
    product a pixel, which runs in bf16 on the matrix units, where OpenVINO runs the transposed form in float32.
    """
    from openvino import opset13 as ops

    for node in graph.get_ordered_ops():
        if node.get_type_name() != "ConvolutionBackpropData" or node.get_input_size() != 2:
            continue
        weights = node.input_value(1).get_node()
        form = {key: list(node.get_attributes()[key]) for key in ("strides", "pads_begin", "pads_end", "dilations")}
        plain = {"strides": [2, 2], "pads_begin": [0, 0], "pads_end": [0, 0], "dilations": [1, 1]}
        if weights.get_type_name() != "Constant" or form != plain or list(weights.get_output_shape(0)[2:]) != [2, 2]:
            continue
        values = weights.get_data()  # (in, out, 2, 2)
        kernel = values.transpose(1, 2, 3, 0).reshape(-1, values.shape[0], 1, 1)
        product = ops.convolution(node.input_value(0), np.ascontiguousarray(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
        node.output(0).replace(ops.depth_to_space(product, "depth_first", 2).output(0))


def cut_sigmoid(graph: Any) -> None:
    """Let a det graph end before its final sigmoid, in place: the output is the map's logits.

    Raises:
        ConfigError: the graph does not end in a sigmoid, as every PP-OCR det model does.
    """
    last = graph.outputs[0].get_node().input_value(0).get_node()
    if last.get_type_name() != "Sigmoid":
        raise ConfigError("This model does not end like a DB model, so it has no det_logits.")
    _end_in(graph, last.input_value(0))


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
    classes = matrix.input_value(1).get_node().get_data()
    features = ops.parameter([rows, classes.shape[0]], np.float32)
    logits = ops.add(ops.matmul(features, classes, False, False), bias.input_value(1).get_node().get_data())
    _end_in(graph, matrix.input_value(0))
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


def _end_in(graph: Any, *outputs: Any) -> None:
    """Make these values the only outputs of the graph."""
    from openvino import opset13 as ops

    for result in graph.get_results():
        graph.remove_result(result)
    graph.add_results([ops.result(output) for output in outputs])
