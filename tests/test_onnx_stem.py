"""A rec graph's stem in 8 bits: maps stay near what they were, and whatever else is in the graph stays."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import zoo_models
from onnx import TensorProto, helper, numpy_helper

from ocr_serving.engine import onnx_graph, onnx_stem
from ocr_serving.engine.base import normalize
from ocr_serving.model_dir import Normalization

HOW = Normalization(scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def conv(source: str, output: str, **form):
    return helper.make_node("Conv", [source, f"{output}_kernel"], [output], name=output, **form)


def stem(activation: str = "Relu"):
    """As PP-OCRv6's: a pooled branch beside two convolutions, joined and halved, then a depthwise convolution."""
    rng = np.random.default_rng(1)
    kernels = {"a": (8, 3, 3, 3), "b": (4, 8, 2, 2), "c": (8, 4, 2, 2), "d": (12, 16, 3, 3), "y": (12, 1, 3, 3)}
    constants = {f"{k}_kernel": rng.normal(size=s) / np.sqrt(np.prod(s[1:])) for k, s in kernels.items()}
    constants |= {"a_bias": rng.normal(size=(1, 8, 1, 1)), "c_bias": rng.normal(size=(1, 8, 1, 1))}
    constants |= {k: rng.uniform(0.5, 2, 4) for k in ("factor", "offset", "mean", "variance")}
    nodes = [
        conv("x", "a", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "a_bias"], ["a_sum"]),
        helper.make_node(activation, ["a_sum"], ["a_on"]),
        conv("a_on", "b", auto_pad="SAME_UPPER"),
        helper.make_node("BatchNormalization", ["b", "factor", "offset", "mean", "variance"], ["b_sum"]),
        helper.make_node(activation, ["b_sum"], ["b_on"]),
        conv("b_on", "c", auto_pad="SAME_UPPER"),
        helper.make_node("Add", ["c", "c_bias"], ["c_sum"]),
        helper.make_node(activation, ["c_sum"], ["c_on"]),
        helper.make_node("MaxPool", ["a_on"], ["pooled"], kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_UPPER"),
        helper.make_node("Concat", ["pooled", "c_on"], ["joined"], axis=1),
        conv("joined", "d", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node(activation, ["d"], ["d_on"]),
        conv("d_on", "y", pads=[1, 1, 1, 1], group=12),
    ]
    return model_of(nodes, constants, "y")


def model_of(nodes, constants, *outputs: str):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("x", *outputs)]
    values = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], values)
    imports = [helper.make_opsetid("", 11), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def quantized(model):
    onnx_stem.quantize_stem(model, normalize(onnx_stem.spots(48), HOW))
    return Counter(node.op_type for node in model.graph.node)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.fixture
def line() -> np.ndarray:
    """Grey strokes on white, of an odd width, so that windows at its end are not full."""
    rng = np.random.default_rng(2)
    strokes = np.repeat(np.repeat(rng.uniform(size=(1, 12, 25)) < 0.4, 4, 1), 5, 2)[..., None]
    image = np.where(strokes, np.uint8(70), np.uint8(240)).repeat(3, 3)
    return normalize(image, HOW)


def test_the_stem_runs_in_8_bits_and_stays_near_what_it_was(line):
    model = stem()
    [before] = run(model, line)
    kinds = quantized(model)
    assert (kinds["QLinearConv"], kinds["NhwcMaxPool"], kinds["Conv"], kinds["MaxPool"]) == (3, 1, 2, 0)
    [after] = run(model, line)
    assert np.abs(after - before).std() < 0.01 * before.std()
    assert np.abs(after - before).max() < 0.1 * before.std()  # at the borders, too


def test_a_stem_with_negative_values_stays_as_it_is():
    """Half of the bytes would be for them; with PP-OCRv6 tiny that cost 0.005 of the receipts' F1."""
    model = stem("LeakyRelu")
    before = model.SerializeToString()
    quantized(model)
    assert model.SerializeToString() == before


def test_a_map_that_is_an_output_too_is_given_in_floats(line):
    model = stem()
    model.graph.output.append(helper.make_tensor_value_info("b_on", TensorProto.FLOAT, [None] * 4))
    before = run(model, line)
    quantized(model)
    for after, was in zip(run(model, line), before, strict=True):
        assert np.abs(after - was).std() < 0.02 * was.std()


def test_a_graph_without_depthwise_convolutions_stays_as_it_is():
    """It has no end of a stem: all of it would be rounded."""
    kernels = {"a_kernel": np.ones((4, 3, 3, 3)), "y_kernel": np.ones((4, 4, 3, 3))}
    model = model_of([conv("x", "a"), conv("a", "y")], kernels, "y")
    before = model.SerializeToString()
    quantized(model)
    assert model.SerializeToString() == before


def test_a_model_of_another_width_stays_as_it_is():
    """A model server may serve it all the same, to clients that know its width."""
    model = stem()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 100
    before = model.SerializeToString()
    quantized(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("name", "convolutions"), [("ocr_rec", 4), ("ppocrv6_tiny_rec", 0), ("ppocrv5_mobile_rec", 0)])
def test_the_zoo_s_rec_models_have_their_stem_replaced(name, convolutions):
    model = onnx_graph.load(zoo_models.predictor(name).model.model_file)
    assert onnx_graph.quantize_products(model)
    assert quantized(model)["QLinearConv"] == convolutions
