"""Changes to an ONNX graph before ONNX Runtime loads it: 8-bit products where they cost no accuracy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_serving.engine.rounding import weight_steps

Constants = dict[str, NDArray[Any]]
"""Name -> value."""

_LEAST_WEIGHTS = 96 * 192
"""Smaller 1 x 1 convolutions stay in f32: rounding their input and moving it to NHWC takes what the product saves."""
_LEAST_CLASS_WEIGHTS = 2**18
"""Matrices of attention, which are smaller, stay in f32: they take a hundredth of the time."""
PAIR_LIMIT = 160
"""Largest sum of two neighbouring weights of one sign. 204 * 160 = 32640 fits into int16: on AVX2 (see
rounding.EXACT_PAIR) sums are exact but for inputs in the upper fifth of their range. With weights a fifth coarser all
would be exact, but that costs more accuracy."""
_PRODUCT = "DynamicQuantizeMatMul"


def load(path: Path) -> Any | None:
    """The model in a file, as onnx.ModelProto; None where it is no valid one. ONNX Runtime may take it even so."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError):
        return None
    return model


def quantize_products(model: Any) -> bool:
    """Compute the large 1 x 1 convolutions and the class matrix in 8 bits, in place; False where there are none.

    Weights are rounded here, to int8 with a scale for each output channel; inputs at each run, to uint8 with one scale
    for all of it (ONNX Runtime's DynamicQuantizeMatMul), so what comes out for a line depends on what it is run with.

    Args:
        model: onnx.ModelProto, a graph of image convolutions (NCHW). One with branches or loops stays as it is.
    """
    from onnx import AttributeProto, helper, numpy_helper

    graph = model.graph
    if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for node in graph.node for a in node.attribute):
        return False
    _drop_identities(graph)
    rewriting = _Rewriting(graph)
    for node in graph.node:
        rewriting.take(node)
    nodes = rewriting.needed({value.name for value in graph.output})
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in rewriting.constants.items() if name in used
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return any(node.op_type == _PRODUCT for node in nodes)


class _Rewriting:
    """Makes the new graph's nodes of the old one's.

    A product takes and gives maps with their channels last. Where two such maps are added, the sum is of those, so that
    neither has to be moved back first.

    Attributes:
        constants: of both graphs.
    """

    def __init__(self, graph: Any) -> None:
        self.constants = constants(graph)
        self._users = users(graph)
        self._nodes: list[Any] = []
        self._made: set[str] = set()
        self._channels_last: dict[str, str] = {}

    def take(self, node: Any) -> None:
        """Go on with the next node of the old graph."""
        if node.output[0] in self._made or _constant(node):
            return
        if _is_large_pointwise(node, self.constants):
            output, bias = self._with_bias(node, (1, -1, 1, 1))
            kernel = self.constants[node.input[1]]
            last = self._product(self._moved(node.input[0]), kernel[:, :, 0, 0].T, bias, f"{output}_channels_last")
            self._move_back(last, output)
        elif _is_class_matrix(node, self.constants):
            output, bias = self._with_bias(node, (-1,))
            self._product(node.input[0], self.constants[node.input[1]], bias, output)
        elif node.op_type == "Add" and self._channels_last.keys() >= set(node.input):
            [output] = node.output
            last = self._append("Add", [self._moved(name) for name in node.input], f"{output}_channels_last")
            self._move_back(last, output)
        else:
            self._nodes.append(node)

    def needed(self, outputs: set[str]) -> list[Any]:
        """The new nodes that the outputs depend on."""
        wanted = set(outputs)
        kept = []
        for node in reversed(self._nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                kept.append(node)
        return kept[::-1]

    def _product(self, taken: str, matrix: NDArray[np.float32], bias: NDArray[np.float32] | None, output: str) -> str:
        """A matrix (inputs, outputs) in 8 bits."""
        rounded, scale = round_weights(matrix)
        names = [f"{output}_{part}" for part in ("weights", "scale", "bias")]
        self.constants |= {names[0]: rounded, names[1]: scale}
        inputs = [taken, *names[:2]]
        if bias is not None:
            self.constants[names[2]] = bias
            inputs += ["", names[2]]
        return self._append(_PRODUCT, inputs, output, domain="com.microsoft")

    def _moved(self, name: str) -> str:
        """The map (n, c, h, w) as (n, h, w, c)."""
        if name not in self._channels_last:
            last = f"{name}_channels_last"
            self._channels_last[name] = self._append("Transpose", [name], last, perm=[0, 2, 3, 1])
        return self._channels_last[name]

    def _move_back(self, last: str, output: str) -> None:
        self._channels_last[output] = last
        self._append("Transpose", [last], output, perm=[0, 3, 1, 2])

    def _append(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _with_bias(self, node: Any, shape: tuple[int, ...]) -> tuple[str, NDArray[np.float32] | None]:
        """What a node with its bias makes, and the bias (channels,): its own, or that of an Add in this shape."""
        [output] = node.output
        if len(node.input) > 2:
            return output, self.constants[node.input[2]]
        takers = self._users[output]
        if len(takers) == 1 and takers[0].op_type == "Add" and takers[0].input[0] == output:
            bias = self.constants.get(takers[0].input[1])
            if bias is not None and bias.shape == bias.reshape(shape).shape:
                self._made.add(takers[0].output[0])
                return takers[0].output[0], bias.reshape(-1)
        return output, None


def round_weights(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A matrix (inputs, outputs) as int8 of the same shape, and the scale of each output, float32 (outputs,).

    No two neighbouring weights of an output that have the same sign add up to more than PAIR_LIMIT.
    """
    scale = weight_steps(matrix.T, PAIR_LIMIT)
    return np.rint(matrix / scale).astype(np.int8), scale


def constants(graph: Any) -> Constants:
    """The initializers of an onnx.GraphProto and the values of its Constants, in which some exporters keep weights."""
    from onnx import numpy_helper

    tensors = {value.name: value for value in graph.initializer} | dict(filter(None, map(_constant, graph.node)))
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def users(graph: Any) -> Mapping[str, list[Any]]:
    """Name of a value -> the nodes that take it."""
    found: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def attributes(node: Any) -> dict[str, Any]:
    """Name -> value, strings as str."""
    from onnx import helper

    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _constant(node: Any) -> tuple[str, Any] | None:
    """The name and tensor of a Constant; None for other nodes."""
    if node.op_type != "Constant" or node.attribute[0].name != "value":
        return None
    return node.output[0], node.attribute[0].t


def _is_large_pointwise(node: Any, constants: Constants) -> bool:
    """Whether it is a convolution that is worth it, with weights, and bias if any, that are constants."""
    if node.op_type != "Conv" or not all(name in constants for name in node.input[1:]):
        return False
    kernel = constants[node.input[1]]
    form = attributes(node)
    return (
        kernel.dtype == np.float32
        and kernel.ndim == 4
        and kernel.shape[2:] == (1, 1)
        and kernel.size >= _LEAST_WEIGHTS
        and form.get("group", 1) == 1
        and set(form.get("strides", [1])) == {1}
        and not any(form.get("pads", []))
    )


def _is_class_matrix(node: Any, constants: Constants) -> bool:
    """Whether it multiplies with a constant matrix that is as large as one of classes."""
    matrix = constants.get(node.input[1]) if node.op_type == "MatMul" else None
    if matrix is None or matrix.dtype != np.float32:
        return False
    return matrix.ndim == 2 and matrix.size >= _LEAST_CLASS_WEIGHTS


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
