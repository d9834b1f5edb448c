"""Changes to an ONNX graph before ONNX Runtime loads it: 8-bit products where they cost no accuracy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_serving.errors import ConfigError

Constants = dict[str, NDArray[Any]]
"""Name -> value."""

_LEAST_WEIGHTS = 96 * 192
"""Smaller 1 x 1 convolutions stay in f32: rounding their input and moving it to NHWC takes what the product saves."""
_PAIR_LIMIT = 127
"""Largest sum of two neighbouring weights of one sign. AVX2 adds two products of uint8 and int8 in int16, and
255 * 127 = 32385 is the most that fits; larger sums it would cut off (vpmaddubsw, Intel's instruction reference)."""


def load(path: Path) -> Any:
    """The model in a file, as onnx.ModelProto.

    Raises:
        ConfigError: the file is not a whole ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ConfigError(f"ONNX Runtime cannot load {path}: the file is damaged or of another kind.") from error
    return model


def quantize_pointwise(model: Any) -> bool:
    """Compute the large 1 x 1 convolutions in 8 bits, in place; False where there are none with constant weights.

    Weights are rounded here, to int8 with a scale for each output channel; inputs at each run, to uint8 with one scale
    for all of it (ONNX Runtime's DynamicQuantizeMatMul), so what comes out for a line depends on what it is run with.

    Args:
        model: onnx.ModelProto, a graph of image convolutions (NCHW).
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    _drop_identities(graph)
    constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    users: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    nodes: list[Any] = []
    made: set[str] = set()
    for node in graph.node:
        if _is_large_pointwise(node, constants):
            output, bias = _with_bias(node, users[node.output[0]], constants)
            made.add(output)
            nodes += _int8_product(node, output, bias, constants)
        elif node.output[0] not in made:
            nodes.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in constants if name in used)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return bool(made)


def _int8_product(conv: Any, output: str, bias: NDArray[Any] | None, constants: Constants) -> list[Any]:
    """The nodes that make the output of a convolution and its bias; what they need is added to the constants."""
    from onnx import helper

    name = f"int8_{conv.output[0]}"
    rounded, scale = round_weights(constants[conv.input[1]][:, :, 0, 0].T)
    constants |= {f"{name}_weights": rounded, f"{name}_scale": scale}
    inputs = [f"{name}_in", f"{name}_weights", f"{name}_scale"]
    if bias is not None:
        constants[f"{name}_bias"] = bias
        inputs += ["", f"{name}_bias"]
    return [
        helper.make_node("Transpose", [conv.input[0]], [f"{name}_in"], perm=[0, 2, 3, 1]),
        helper.make_node("DynamicQuantizeMatMul", inputs, [f"{name}_out"], domain="com.microsoft"),
        helper.make_node("Transpose", [f"{name}_out"], [output], perm=[0, 3, 1, 2]),
    ]


def round_weights(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A matrix (inputs, outputs) as int8 of the same shape, and the scale of each output, float32 (outputs,).

    No two neighbouring weights of an output have a sum beyond +-_PAIR_LIMIT, so 8-bit products are exact on AVX2 too.
    """
    pairs = np.pad(matrix, ((0, len(matrix) % 2), (0, 0))).reshape(-1, 2, matrix.shape[1])
    largest = np.maximum(np.maximum(pairs, 0).sum(1), np.maximum(-pairs, 0).sum(1)).max(0)
    scale = np.where(largest > 0, largest / (_PAIR_LIMIT - 1), 1).astype(np.float32)  # each of two may be rounded up
    return np.rint(matrix / scale).astype(np.int8), scale


def _is_large_pointwise(node: Any, constants: Constants) -> bool:
    """Whether it is a convolution that is worth it, with weights, and bias if any, that are constants."""
    if node.op_type != "Conv" or not all(name in constants for name in node.input[1:]):
        return False
    kernel = constants[node.input[1]]
    attributes = {a.name: list(a.ints) or a.i for a in node.attribute}
    return (
        kernel.ndim == 4
        and kernel.shape[2:] == (1, 1)
        and kernel.size >= _LEAST_WEIGHTS
        and attributes.get("group", 1) == 1
        and set(attributes.get("strides", [1])) == {1}
        and not any(attributes.get("pads", []))
    )


def _with_bias(conv: Any, users: Sequence[Any], constants: Constants) -> tuple[str, NDArray[Any] | None]:
    """The value that a convolution with its bias makes, and the bias (channels,): its own or that of an Add."""
    if len(conv.input) > 2:
        return conv.output[0], constants[conv.input[2]]
    if len(users) == 1 and users[0].op_type == "Add" and users[0].input[0] == conv.output[0]:
        bias = constants.get(users[0].input[1])
        if bias is not None and bias.shape == (1, bias.size, 1, 1):
            return users[0].output[0], bias.reshape(-1)
    return conv.output[0], None


def _drop_identities(graph: Any) -> None:
    """Let the users of an Identity take its input, unless its output is one of the graph."""
    outputs = {value.name for value in graph.output}
    source: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = source.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
