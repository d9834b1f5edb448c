"""Rewritten graphs give what the model's own output says."""

from collections import Counter

import numpy as np
import openvino
import pytest
import zoo_models

from ocr_serving.engine import openvino_graph
from ocr_serving.engine.base import ctc_best
from ocr_serving.errors import ConfigError

ROWS = 40


def read(name):
    model = zoo_models.predictor(name).model
    return openvino.Core().read_model(str(model.model_file))


def run(graph, array):
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(value) for value in compiled([array]).values()]


@pytest.fixture(scope="module")
def line() -> np.ndarray:
    """Noise with something like strokes: float32 (1, 3, 48, 320), 40 time steps."""
    strokes = np.random.default_rng(5).normal(size=(1, 1, 6, 40))
    return np.kron(strokes, np.ones((1, 3, 8, 8))).astype(np.float32)


@pytest.fixture(scope="module")
def best(line):
    [probabilities] = run(read("ocr_rec"), line)
    return ctc_best(probabilities)


def test_a_graph_that_ends_in_its_best_classes(line, best):
    graph = read("ocr_rec")
    openvino_graph.end_in_best_classes(graph)
    index, score = run(graph, line)
    np.testing.assert_array_equal(index, best[0])
    np.testing.assert_allclose(score, best[1], atol=1e-6)


def test_a_graph_cut_before_its_class_matrix(line, best):
    graph = read("ocr_rec")
    head = openvino_graph.cut_ctc_head(graph, ROWS)
    [features] = run(graph, line)
    index, score = run(head, features[0])
    np.testing.assert_array_equal(index[:, 0], best[0][0])
    np.testing.assert_allclose(score[:, 0], best[1][0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("ocr_det", {"ConvolutionBackpropData": 2, "Interpolate": 1, "Concat": 2}),
        ("ppocrv6_tiny_det", {"ConvolutionBackpropData": 2, "Interpolate": 1, "Concat": 2}),
        ("ppocrv5_mobile_det", {"ConvolutionBackpropData": 2, "Interpolate": 1, "Concat": 1}),
    ],
)
def test_a_simplified_det_graph_gives_the_same_map_from_border_to_border(name, removed):
    graph, simple = read(name), read(name)
    openvino_graph.simplify_det(simple)
    before, after = (Counter(node.get_type_name() for node in g.get_ordered_ops()) for g in (graph, simple))
    assert {kind: before[kind] - after[kind] for kind in removed} == removed
    assert maps_added_to_their_product(simple) == 0
    for form in (graph, simple):
        openvino_graph.cut_sigmoid(form)  # the logits, so that errors show where the map is all but 0
    for i, (height, width) in enumerate([(32, 32), (64, 96), (160, 32), (288, 416)]):
        blocks = np.random.default_rng(i).normal(size=(1, 3, height // 8, width // 8))
        image = np.kron(blocks, np.ones((1, 1, 8, 8))).astype(np.float32)
        [expected], [found] = run(graph, image), run(simple, image)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def maps_added_to_their_product(graph) -> int:
    """How many maps are added to what they are multiplied to."""
    sums = [node.input_values() for node in graph.get_ordered_ops() if node.get_type_name() == "Add"]
    pairs = [pair for a, b in sums for pair in ((a, b.get_node()), (b, a.get_node()))]
    return sum(product.get_type_name() == "Multiply" and value in product.input_values() for value, product in pairs)


def test_a_det_model_has_no_best_classes():
    for end in (openvino_graph.end_in_best_classes, lambda graph: openvino_graph.cut_ctc_head(graph, ROWS)):
        with pytest.raises(ConfigError):
            end(read("ocr_det"))
