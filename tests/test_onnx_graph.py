"""Products in 8 bits: what the graph computes is what integer arithmetic says, and texts stay as they were."""

import numpy as np
import onnxruntime
import pytest
import zoo_models
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from ocr_serving.engine import onnx_graph

INPUTS, OUTPUTS = 192, 96


def model_of(*nodes, rank: int = 4, **constants: np.ndarray):
    """A model from x to y."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in "xy"]
    values = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)


def convolution(weights: np.ndarray, bias: np.ndarray):
    """A model of a 1 x 1 convolution, an Identity and the Add of its bias, as Paddle's exporter writes them."""
    return model_of(
        helper.make_node("Conv", ["x", "w"], ["product"], kernel_shape=[1, 1]),
        helper.make_node("Identity", ["product"], ["same"]),
        helper.make_node("Add", ["same", "b"], ["y"]),
        w=weights.T[:, :, None, None],
        b=bias[None, :, None, None],
    )


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.fixture
def weights() -> np.ndarray:
    """Neighbours of one sign and full size: the worst case for sums of products in int16."""
    rng = np.random.default_rng(3)
    same_sign = np.sign(rng.normal(size=(INPUTS // 2, 1, OUTPUTS))) * np.ones((1, 2, 1))
    return (same_sign.reshape(INPUTS, OUTPUTS) * rng.uniform(0.5, 1, (INPUTS, OUTPUTS))).astype(np.float32)


def test_products_equal_those_of_the_rounded_numbers(weights):
    bias = np.linspace(-1, 1, OUTPUTS, dtype=np.float32)
    model = convolution(weights, bias)
    onnx_graph.quantize_products(model)
    bytes_in = np.random.default_rng(4).integers(0, 205, (1, INPUTS, 3, 40))
    bytes_in[0, 0, 0, 0], bytes_in[0, 1, 0, 0] = 255, 0
    x = (bytes_in / 255).astype(np.float32)  # from 0 to 1: the zero point is 0, the scale 1/255
    rounded, scale = onnx_graph.round_weights(weights)
    exact = np.einsum("nchw,co->nohw", bytes_in, rounded.astype(np.float64)) / 255 * scale[:, None, None]
    np.testing.assert_allclose(run(model, x), exact + bias[:, None, None], atol=1e-3)


def test_the_convolution_is_replaced_and_close_to_what_it_was(weights):
    model = convolution(weights, np.zeros(OUTPUTS, np.float32))
    x = np.random.default_rng(4).normal(size=(2, INPUTS, 3, 40)).astype(np.float32)
    before = run(model, x)
    onnx_graph.quantize_products(model)
    assert [node.op_type for node in model.graph.node] == ["Transpose", "DynamicQuantizeMatMul", "Transpose"]
    assert np.abs(run(model, x) - before).std() < 0.03 * before.std()


def test_a_sum_of_maps_is_taken_where_their_channels_are_last(weights):
    """As in a residual block: what a product is made of is added to what it makes."""
    square = np.concatenate([weights, weights[::-1]], axis=1)
    model = model_of(
        helper.make_node("Conv", ["x", "w"], ["product"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["x", "product"], ["y"]),
        w=square.T[:, :, None, None],
    )
    x = np.random.default_rng(4).normal(size=(2, INPUTS, 3, 40)).astype(np.float32)
    before = run(model, x)
    assert onnx_graph.quantize_products(model)
    assert [node.op_type for node in model.graph.node] == ["Transpose", "DynamicQuantizeMatMul", "Add", "Transpose"]
    assert np.abs(run(model, x) - before).std() < 0.03 * before.std()


def test_the_class_matrix_is_replaced_and_a_smaller_one_is_not():
    rng = np.random.default_rng(4)
    model = model_of(
        helper.make_node("MatMul", ["x", "attention"], ["features"]),
        helper.make_node("MatMul", ["features", "classes"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["y"]),
        rank=3,
        attention=rng.normal(size=(80, 80)).astype(np.float32),
        classes=rng.normal(size=(80, 6906)).astype(np.float32),
        b=rng.normal(size=6906).astype(np.float32),
    )
    x = rng.normal(size=(1, 20, 80)).astype(np.float32)
    before = run(model, x)
    assert onnx_graph.quantize_products(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "DynamicQuantizeMatMul"]
    assert np.abs(run(model, x) - before).std() < 0.03 * before.std()


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 4)),
        elements=st.floats(-8, 8, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6),
    )
)
def test_rounded_weights_are_near_and_neighbours_overflow_only_with_large_inputs(matrix):
    rounded, scale = onnx_graph.round_weights(matrix)
    assert (np.abs(rounded * scale - matrix) <= scale * 0.5001).all()
    pairs = np.pad(rounded.astype(int), ((0, len(matrix) % 2), (0, 0))).reshape(-1, 2, matrix.shape[1])
    for sign in (1, -1):
        assert (204 * np.maximum(sign * pairs, 0).sum(1) <= 32767).all()


@pytest.mark.parametrize(("name", "products"), [("ocr_rec", 31), ("ppocrv5_mobile_rec", 13)])
def test_the_zoo_s_rec_models_have_their_large_convolutions_and_class_matrix_replaced(name, products):
    """PP-OCRv6's weights are initializers, PP-OCRv5's are nodes."""
    model = onnx_graph.load(zoo_models.predictor(name).model.model_file)
    assert onnx_graph.quantize_products(model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("DynamicQuantizeMatMul") == products
    assert not {"Identity", "Constant"} & set(kinds)


def test_a_graph_with_branches_stays_as_it_is(weights):
    """What is within a branch may use weights of the graph around it."""
    model = convolution(weights, np.zeros(OUTPUTS, np.float32))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["y"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    condition = numpy_helper.from_array(np.array(True), "condition")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["condition"], ["result"], then_branch=branch, else_branch=branch))
    before = model.SerializeToString()
    assert not onnx_graph.quantize_products(model)
    assert model.SerializeToString() == before
