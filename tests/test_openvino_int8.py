"""Det graphs in 8 bits find the boxes that they find in f32."""

from functools import cache

import msgspec
import numpy as np
import openvino
import pytest
import zoo_models
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ocr_serving import samples
from ocr_serving.detection import boxes_from_logits
from ocr_serving.engine import int8_layers, openvino_graph, openvino_int8
from ocr_serving.engine.base import normalize
from ocr_serving.engine.openvino import read_graph
from ocr_serving.engine.rounding import EXACT_PAIR, LARGEST_WEIGHT, weight_steps
from ocr_serving.reading.map_size import to_map_size
from ocr_serving.settings import Settings

PAGES = [sample for sample in samples.render() if sample.name.startswith("imgs/")]


def graph_of(name):
    return read_graph(openvino.Core(), zoo_models.predictor(name).model)


@cache
def logits(name: str, page: int, bytes_for: str = "") -> np.ndarray:
    """The text map (h, w) of a sample page; in 8 bits as they go with f32 or bf16, if any."""
    graph = graph_of(name)
    if bytes_for:
        openvino_int8.quantize(graph, int8_layers.read(zoo_models.predictor(name).model), bytes_for == "bf16")
    return run(graph, normalized(name, page))


def normalized(name, page):
    how = zoo_models.predictor(name).model.normalization
    return normalize(to_map_size(PAGES[page].image, Settings().det_limit_side)[None], how)


def run(graph, image):
    openvino_graph.cut_sigmoid(graph)
    return openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([image])[0][0, 0]


def centers(found):
    quads = boxes_from_logits(found, Settings()).quads
    return quads.mean(1)


@pytest.mark.parametrize("page", range(len(PAGES)))
@pytest.mark.parametrize("bytes_for", ["f32", "bf16"])
@pytest.mark.parametrize("name", ["ocr_det", "ppocrv6_tiny_det"])
def test_the_zoo_s_models_find_the_same_boxes_in_8_bits(name, bytes_for, page):
    exact, rounded = logits(name, page), logits(name, page, bytes_for)
    apart = np.linalg.norm(centers(rounded)[:, None] - centers(exact), axis=-1)
    assert apart.shape[0] == apart.shape[1]
    assert apart.min(0).max() < 2
    unsure = np.abs(exact) < 4
    assert 0 < (rounded - exact)[unsure].std() < 0.8


def test_what_rounding_adds_on_average_is_taken_off():
    """Without it, receipts fall apart."""
    layers = int8_layers.read(zoo_models.predictor("ppocrv6_tiny_det").model)
    graph = graph_of("ppocrv6_tiny_det")
    openvino_int8.quantize(graph, [msgspec.structs.replace(x, error=(0.0,) * len(x.error)) for x in layers], False)
    uncorrected = run(graph, normalized("ppocrv6_tiny_det", 1))
    exact = logits("ppocrv6_tiny_det", 1)
    assert np.abs(uncorrected - exact).mean() > 2 * np.abs(logits("ppocrv6_tiny_det", 1, "f32") - exact).mean()


def test_calibrated_on_pictures_the_graph_is_close_to_what_it_was():
    rng = np.random.default_rng(2)
    blocks = [np.kron(rng.normal(size=(1, 3, 12, 16)), np.ones((1, 1, 16, 16))).astype(np.float32) for _ in range(4)]
    graph = graph_of("ppocrv6_tiny_det")
    layers = openvino_int8.calibrate(graph, blocks[:3])
    names = [layer.name for layer in layers]
    assert names == [layer.name for layer in int8_layers.read(zoo_models.predictor("ppocrv6_tiny_det").model)]
    exact = run(graph.clone(), blocks[3])
    openvino_int8.quantize(graph, layers, False)
    assert 0 < (run(graph, blocks[3]) - exact).std() < 0.1 * exact.std()


def test_layers_of_another_graph_do_not_fit():
    layers = int8_layers.read(zoo_models.predictor("ppocrv6_tiny_det").model)
    graph = graph_of("ppocrv6_tiny_det")
    assert openvino_int8.fit(graph, layers)
    for wrong in (
        msgspec.structs.replace(layers[0], name="Conv.1000"),
        msgspec.structs.replace(layers[0], error=(0.0,)),
    ):
        assert not openvino_int8.fit(graph, [*layers[1:], wrong])


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 2), st.integers(1, 2)),
        elements=st.floats(-8, 8, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6),
    )
)
def test_weights_in_steps_never_overflow(kernel):
    rounded = np.rint(kernel / weight_steps(kernel, EXACT_PAIR).reshape(-1, 1, 1, 1)).astype(int)
    assert np.abs(rounded).max() <= LARGEST_WEIGHT
    assert rounded.any() == kernel.any()
    pairs = np.pad(rounded, ((0, 0), (0, rounded.shape[1] % 2), (0, 0), (0, 0)))
    for sign in (1, -1):
        of_one_sign = np.maximum(sign * pairs, 0)
        assert (255 * (of_one_sign[:, ::2] + of_one_sign[:, 1::2]) <= 32767).all()
