"""The stem of a rec graph in 8 bits, for ONNX Runtime: its convolutions before the first depthwise one, but the first.

ONNX Runtime multiplies bytes in convolutions of any size only where what comes out is rounded as well, in steps fixed
beforehand (QLinearConv). Each channel has steps of its own: a convolution's weights are multiplied by those of its
input. Zero is the lowest byte, so Relu costs nothing; a stem with negative values (PP-OCRv6 tiny's) stays in f32.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving.engine.onnx_graph import PAIR_LIMIT, Constants, attributes, constants, users
from ocr_serving.engine.rounding import weight_steps

logger = logging.getLogger(__name__)

Sizes = Mapping[str, NDArray[np.float32]]
"""Name of a map -> the largest value of each of its channels, (c,)."""

_BLURS = (1.0, 2.0, 4.0)
"""Standard deviations, in pixels of a line 48 high, of the noise that spots are made of: about as wide as strokes."""
_COLORS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
"""Of spots, on their opposites: no colors differ more."""
_SPOTS_WIDTH = 320
_LEAST_SIZE = 0.2
"""Of a channel, as a share of the largest: a smaller one may be larger on real lines than on spots."""
_MICROSOFT = "com.microsoft"
_OF_POOLING = ("kernel_shape", "strides", "pads", "auto_pad", "dilations", "ceil_mode")


def spots(height: int) -> NDArray[np.uint8]:
    """Images (n, height, w, 3) with edges of all directions at full contrast: what makes maps as large as lines do."""
    noise = np.random.default_rng(0).normal(size=(height, _SPOTS_WIDTH))
    colors = np.array(_COLORS, np.uint8)
    masks = [cv2.GaussianBlur(noise, (0, 0), blur * height / 48) > 0 for blur in _BLURS]
    return np.stack([np.where(mask[..., None], color, 255 - color) for mask in masks for color in colors])


def quantize_stem(model: Any, images: NDArray[np.float32]) -> None:
    """Compute the stem in 8 bits, in place; a graph without depthwise convolutions stays as it is.

    Args:
        model: onnx.ModelProto without identities, as onnx_graph.quantize_products leaves it.
        images: inputs of the graph (n, 3, h, w), on which its maps are as large as they get. Where it refuses them,
            it stays as it is.
    """
    from onnx import numpy_helper

    graph = model.graph
    known = constants(graph)
    convolutions = _convolutions(graph, known)
    if not convolutions:
        return
    names = {name for each in convolutions for name in (each.node.input[0], each.output)}
    sizes = _measure(model, sorted(names), images)
    if sizes is None:
        return
    rewriting = _Rewriting(convolutions, sizes)
    for node in graph.node:
        rewriting.take(node)
    rewriting.finish([value.name for value in graph.output])
    del graph.node[:]
    graph.node.extend(rewriting.nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in rewriting.constants.items())


@dataclass(frozen=True)
class _Convolution:
    """One with what follows it: the sum with its bias, its normalisation and its Relu.

    Attributes:
        node: its own.
        kernel: float32 (out, in, h, w).
        bias: float32 (out,).
        output: what the last node of them makes.
        followers: what each of the others makes.
    """

    node: Any
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    output: str
    followers: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Map:
    """A map of bytes (n, h, w, c), which stand for byte * scale.

    Attributes:
        name: of the bytes.
        scale: float32 (c,).
    """

    name: str
    scale: NDArray[np.float32]


def _convolutions(graph: Any, known: Constants) -> list[_Convolution]:
    """Those of the stem but the first, whose three channels gain nothing."""
    every = [node for node in graph.node if node.op_type == "Conv"]
    stem = list(takewhile(lambda node: attributes(node).get("group", 1) == 1, every))
    if len(stem) == len(every) or not all(_is_plain(node, known) for node in stem):
        return []
    takers = users(graph)
    return [_with_followers(node, takers, known) for node in stem[1:]]


def _is_plain(node: Any, known: Constants) -> bool:
    """Whether its weights and bias are constants, of images, in float32."""
    if not all(name in known for name in node.input[1:]):
        return False
    kernel = known[node.input[1]]
    return bool(kernel.ndim == 4 and kernel.dtype == np.float32)


def _with_followers(node: Any, takers: Mapping[str, Sequence[Any]], known: Constants) -> _Convolution:
    kernel = known[node.input[1]]
    bias = known[node.input[2]] if len(node.input) > 2 else np.zeros(len(kernel), np.float32)
    found = _Convolution(node, kernel, bias, node.output[0])
    while len(takers[found.output]) == 1:
        [follower] = takers[found.output]
        others = [known[name] for name in follower.input if name in known]
        if len(others) < len(follower.input) - 1:
            break
        if follower.op_type == "Add" and others[0].size == len(kernel):
            found = replace(found, bias=found.bias + others[0].reshape(-1))
        elif follower.op_type == "BatchNormalization":
            factor = others[0] / np.sqrt(others[3] + attributes(follower).get("epsilon", 1e-5))
            bias = (found.bias - others[2]) * factor + others[1]
            found = replace(found, kernel=found.kernel * factor.reshape(-1, 1, 1, 1), bias=bias)
        elif follower.op_type != "Relu":
            break
        found = replace(found, output=follower.output[0], followers=(*found.followers, follower.output[0]))
        if follower.op_type == "Relu":
            break
    return found


def _measure(model: Any, names: Sequence[str], images: NDArray[np.float32]) -> Sizes | None:
    """How large the named maps get; None where the model refuses the images, or makes negative values of them."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # a refusal is said below
    try:
        session = onnxruntime.InferenceSession(_cut(model, names), settings, ["CPUExecutionProvider"])
        feeds = [{session.get_inputs()[0].name: image[None]} for image in images]
        runs = [[(v.min(), v.max((0, 2, 3))) for v in session.run(list(names), feed)] for feed in feeds]
    except Exception as error:  # ONNX Runtime's exception classes share no base but Exception
        logger.warning("The stem stays in f32: the model refuses %s images (%s).", images.shape, type(error).__name__)
        return None
    if any(low < 0 for run in runs for low, _ in run):
        return None
    return {
        name: np.max([high for _, high in found], axis=0)
        for name, found in zip(names, zip(*runs, strict=True), strict=True)
    }


def _cut(model: Any, names: Sequence[str]) -> bytes:
    """The model up to where the last of the named maps is made, with these as its outputs."""
    from onnx import TensorProto, helper

    graph = model.graph
    end = 1 + max(i for i, node in enumerate(graph.node) if node.output[0] in names)
    nodes = graph.node[:end]
    taken = {name for node in nodes for name in node.input}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    weights = [value for value in graph.initializer if value.name in taken]
    head = helper.make_graph(nodes, "stem", graph.input, outputs, weights)
    cut = helper.make_model(head, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(cut.SerializeToString())


@dataclass
class _Rewriting:
    """Makes the new graph's nodes of the old one's.

    Attributes:
        convolutions: those to replace.
        sizes: of the maps that are rounded.
        nodes, constants: the new ones.
    """

    convolutions: Sequence[_Convolution]
    sizes: Sizes
    nodes: list[Any] = field(default_factory=list)
    constants: Constants = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._replaced = {each.node.output[0]: each for each in self.convolutions}
        self._gone = {name for each in self.convolutions for name in each.followers}
        self._bytes: dict[str, _Map] = {}
        self._floats: set[str] = set()  # of the names in _bytes, those that are there as floats, too

    def take(self, node: Any) -> None:
        """Go on with the next node of the old graph."""
        [output, *_] = node.output
        taken = [self._bytes[name] for name in node.input if name in self._bytes]
        if output in self._gone:
            return
        if output in self._replaced:
            self._convolve(self._replaced[output])
        elif node.op_type == "MaxPool" and taken:
            how = {name: value for name, value in attributes(node).items() if name in _OF_POOLING}
            self._bytes[output] = replace(taken[0], name=f"{output}_bytes")
            self._append("NhwcMaxPool", [taken[0].name], f"{output}_bytes", domain=_MICROSOFT, **how)
        elif node.op_type == "Concat" and len(taken) == len(node.input) and attributes(node)["axis"] == 1:
            self._bytes[output] = _Map(f"{output}_bytes", np.concatenate([each.scale for each in taken]))
            self._append("Concat", [each.name for each in taken], f"{output}_bytes", axis=3)
        else:
            self.finish(node.input)
            self.nodes.append(node)

    def finish(self, names: Sequence[str]) -> None:
        """Make floats of those of the named maps that are there as bytes only."""
        for name in dict.fromkeys(names):
            if name in self._bytes and name not in self._floats:
                self._to_floats(name)

    def _convolve(self, how: _Convolution) -> None:
        taken, made = self._rounded(how.node.input[0]), self._map(how.output)
        kernel = how.kernel * taken.scale.reshape(1, -1, 1, 1)
        steps = weight_steps(kernel, PAIR_LIMIT)
        values = {
            "one": np.float32(1),
            "zero": np.uint8(0),
            "weights": np.rint(kernel / steps.reshape(-1, 1, 1, 1)).astype(np.int8),
            "steps": steps / made.scale,
            "middle": np.zeros(len(steps), np.int8),
            "bias": np.rint(how.bias / steps).astype(np.int32),
        }
        one, zero, weights, scale, middle, bias = (self._constant(how.output, *each) for each in values.items())
        inputs = [taken.name, one, zero, weights, scale, middle, one, zero, bias]
        form = attributes(how.node)
        self._append("QLinearConv", inputs, made.name, domain=_MICROSOFT, channels_last=1, **form)
        self._bytes[how.output] = made

    def _map(self, name: str) -> _Map:
        """The bytes that a map is rounded to."""
        size = self.sizes[name]
        size = np.maximum(size, max(_LEAST_SIZE * size.max(), np.finfo(np.float32).tiny))
        return _Map(f"{name}_bytes", (size / 255).astype(np.float32))

    def _rounded(self, name: str) -> _Map:
        """The bytes of a map, which may be there as floats only."""
        if name not in self._bytes:
            made = self._bytes[name] = self._map(name)
            self._floats.add(name)
            self._append("QuantizeLinear", [name, *self._steps(name)], f"{name}_rounded", domain=_MICROSOFT, axis=1)
            self._append("Transpose", [f"{name}_rounded"], made.name, perm=[0, 2, 3, 1])
        return self._bytes[name]

    def _to_floats(self, name: str) -> None:
        """Make a map of floats of its bytes."""
        self._floats.add(name)
        moved = f"{name}_channels_first"
        self._append("Transpose", [self._bytes[name].name], moved, perm=[0, 3, 1, 2])
        self._append("DequantizeLinear", [moved, *self._steps(name)], name, domain=_MICROSOFT, axis=1)

    def _steps(self, name: str) -> tuple[str, str]:
        """The scale and the zero of each channel of a map."""
        scale = self._bytes[name].scale
        return self._constant(name, "scale", scale), self._constant(name, "zeros", np.zeros(len(scale), np.uint8))

    def _constant(self, of: str, name: str, value: Any) -> str:
        full = f"{of}_{name}"
        self.constants[full] = np.asarray(value)
        return full

    def _append(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
