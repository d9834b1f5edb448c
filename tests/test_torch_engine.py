"""The engine of GPUs, where PyTorch is installed; without a GPU, PyTorch runs the same graphs on the CPU."""

import gc
import random
import shutil
import threading
import warnings
import weakref

import cv2
import golden
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_model
import zoo_models
from onnx import TensorProto, helper, numpy_helper

from ocr_serving import model_dir
from ocr_serving.engine.base import Engine, normalize
from ocr_serving.engine.select import load_engine
from ocr_serving.errors import ConfigError, EngineFailed
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE, DET_LOGITS
from ocr_serving.settings import Settings

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make DEVICE=gpu test installs it")
from ocr_serving.engine.torch_graph import TorchGraph  # noqa: E402  # it needs PyTorch

DEVICE = "gpu" if torch.cuda.is_available() else "cpu"
MODELS = ("ppocrv6_small", "ppocrv6_tiny", "ppocrv5_mobile")


def load(name: str, precision: str = "f32", sessions: int = 1) -> Engine:
    settings = Settings(engine="torch", device=DEVICE, precision=precision)
    return load_engine(model_dir.load(zoo_models.folder(name)), settings, sessions)


def expected(name: str, image: np.ndarray, *fetch: str) -> dict[str, np.ndarray]:
    """What ONNX Runtime makes of it on the CPU."""
    return zoo_models.predictor(name, "onnxruntime", "f32").engine.run({"x": image}, fetch, None)


def lines(rows: int, width: int) -> np.ndarray:
    """Pieces of a line of text, uint8 (rows, 48, width, 3)."""
    crop = golden.ops()["crop0"]
    line = cv2.resize(crop, (48 * crop.shape[1] // crop.shape[0], 48))
    return np.stack([line[:, 40 * i : 40 * i + width] for i in range(rows)])


@pytest.fixture(scope="module")
def page() -> np.ndarray:
    return cv2.resize(golden.page(), (320, 544))[None]


@pytest.mark.parametrize("family", MODELS)
def test_a_text_map_is_that_of_onnx_runtime(family, page):
    det = load(f"{family}_det")
    for size in ((320, 544), (96, 160)):
        image = np.ascontiguousarray(page[:, : size[1], : size[0]])
        logits = det.run({"x": image}, [DET_LOGITS], None)[DET_LOGITS]
        assert np.abs(logits).max() > 3  # text was seen
        wanted = expected(f"{family}_det", image, DET_LOGITS)[DET_LOGITS]
        # made of probabilities there, which say little of logits far from 0
        np.testing.assert_allclose(logits.clip(-7, 7), wanted.clip(-7, 7), atol=0.02)


@pytest.mark.parametrize("family", MODELS)
def test_classes_are_those_of_onnx_runtime(family):
    rec = load(f"{family}_rec")
    for batch in (lines(3, 320), lines(1, 64)):
        found = rec.run({"x": batch}, [CTC_INDEX, CTC_SCORE], None)
        wanted = expected(f"{family}_rec", batch, CTC_INDEX, CTC_SCORE)
        np.testing.assert_array_equal(found[CTC_INDEX], wanted[CTC_INDEX])
        np.testing.assert_allclose(found[CTC_SCORE], wanted[CTC_SCORE], atol=0.002)


def test_normalized_input_and_the_graphs_own_output():
    rec, batch = load("ocr_rec"), lines(2, 320)
    [name] = rec.outputs
    tensor = normalize(batch, zoo_models.predictor("ocr_rec").model.normalization)
    found = rec.run({"x": tensor}, [name, CTC_INDEX], None)
    assert found[name].shape == (2, 40, rec.classes)
    np.testing.assert_allclose(found[name], expected("ocr_rec", batch, name)[name], atol=0.002)
    np.testing.assert_array_equal(found[CTC_INDEX], found[name].argmax(-1))


@pytest.mark.skipif(DEVICE == "cpu", reason="tf32 is a GPU's")
def test_tf32_reads_what_f32_reads():
    batch = lines(4, 320)
    precise, quick = (load("ocr_rec", precision).run({"x": batch}, [CTC_INDEX], None) for precision in ("f32", "auto"))
    assert (precise[CTC_INDEX] == quick[CTC_INDEX]).mean() > 0.98


def test_answers_stay_the_same_however_often_and_in_whatever_order_shapes_come():
    rec = load("ocr_rec")
    batches = [lines(rows, width) for rows in (1, 2, 3, 5) for width in (64, 160, 320)]
    alone = [rec.run({"x": batch}, [CTC_INDEX, CTC_SCORE], None) for batch in batches]
    kept = [{name: value.copy() for name, value in answer.items()} for answer in alone]
    order = list(range(len(batches))) * 3
    random.Random(5).shuffle(order)
    for i in order:
        again = rec.run({"x": batches[i]}, [CTC_INDEX, CTC_SCORE], None)
        np.testing.assert_array_equal(again[CTC_INDEX], kept[i][CTC_INDEX])
        np.testing.assert_allclose(again[CTC_SCORE], kept[i][CTC_SCORE], atol=1e-3)
    for answer, copy in zip(alone, kept, strict=True):  # no later run wrote into it
        np.testing.assert_array_equal(answer[CTC_SCORE], copy[CTC_SCORE])


def test_a_row_of_a_batch_is_read_as_alone():
    rec, batch = load("ocr_rec"), lines(5, 160)
    together = rec.run({"x": batch}, [CTC_INDEX], None)[CTC_INDEX]
    assert len(together) == 5
    for row, line in zip(together, batch, strict=True):
        np.testing.assert_array_equal(row, rec.run({"x": line[None]}, [CTC_INDEX], None)[CTC_INDEX][0])


def test_det_and_rec_run_side_by_side(page):
    """Shapes that come a second time are recorded, also while others run."""
    det, rec = load("ocr_det"), load("ocr_rec", sessions=2)
    work = [(rec, lines(rows, width), CTC_INDEX) for rows in (1, 4) for width in (64, 96, 160)]
    work += [(det, np.ascontiguousarray(page[:, :side]), DET_LOGITS) for side in (96, 160, 320)]
    wanted = [engine.run({"x": image}, [name], None)[name] for engine, image, name in work]
    wrong: list[int] = []

    def run(seed: int) -> None:
        for i in random.Random(seed).sample(range(len(work)), len(work)) * 3:
            engine, image, name = work[i]
            if not np.allclose(engine.run({"x": image}, [name], None)[name], wanted[i], atol=0.02):
                wrong.append(i)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_input_that_the_graph_refuses_is_an_error_and_the_next_run_works():
    rec, batch = load("ocr_rec"), lines(1, 160)
    for _ in range(2):
        with pytest.raises(EngineFailed, match="does not fit the model"):
            rec.run({"x": np.zeros((1, 5, 48, 64), np.float32)}, [], None)
        assert rec.run({"x": batch}, [CTC_INDEX], None)[CTC_INDEX].shape == (1, 20)


def test_a_model_of_one_s_own_runs(tmp_path):
    model = model_dir.load(tiny_model.write(tmp_path / "tiny", 3))
    engine = load_engine(model, Settings(engine="torch", device=DEVICE))
    x = np.random.default_rng(0).standard_normal((3, tiny_model.SIZE)).astype(np.float32)
    np.testing.assert_allclose(engine.run({"x": x}, ["y"], None)["y"], 3 * x, rtol=1e-2)


OPERATORS = {
    "Softmax over all axes from the second on": (11, "Softmax", {}, [], (2, 3, 4)),
    "Softmax over the last axis": (13, "Softmax", {}, [], (2, 3, 4)),
    "Unsqueeze at negative axes": (11, "Unsqueeze", {"axes": [-3, -1]}, [], (3, 4)),
    "Resize that repeats pixels": (11, "Resize", {}, [np.zeros(0, np.float32), np.float32([1, 1, 2, 4])], (1, 2, 3, 4)),
    "MaxPool with gaps": (11, "MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, [], (1, 2, 7, 8)),
    "MaxPool padded at the end": (11, "MaxPool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, [], (1, 2, 7, 8)),
    "AveragePool rounded up": (
        11, "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [], (1, 2, 7, 9)
    ),
    "Conv padded at the beginning": (
        11, "Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, [np.ones((3, 2, 3, 3), np.float32)], (1, 2, 7, 8)
    ),
    "Conv of each channel, padded at the end": (
        11, "Conv", {"auto_pad": "SAME_UPPER", "group": 2}, [np.ones((2, 1, 2, 4), np.float32)], (1, 2, 7, 8)
    ),
    "Conv with gaps": (11, "Conv", {"dilations": [2, 2]}, [np.ones((3, 2, 2, 2), np.float32)], (1, 2, 7, 8)),
    "Slice of the first axes": (11, "Slice", {}, [np.array([0, 1]), np.array([1, 3])], (2, 4, 5)),
    "Squeeze of all": (11, "Squeeze", {}, [], (1, 3, 1)),
    "Transpose without an order": (11, "Transpose", {}, [], (2, 3, 4)),
    "ReduceMean of all": (11, "ReduceMean", {}, [], (2, 3, 4)),
    "ReduceMean over given axes": (18, "ReduceMean", {"keepdims": 0}, [np.array([-1])], (2, 3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("case", OPERATORS)
def test_an_operator_does_what_onnx_says(case):
    opset, operator, attributes, constants, shape = OPERATORS[case]
    names = [f"c{i}" for i in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *names], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in zip(names, constants, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    [wanted] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    device = torch.device("cuda" if DEVICE == "gpu" else "cpu")
    [found] = TorchGraph(model, device).calculation(["y"])([torch.from_numpy(x).to(device)])
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.cpu().numpy(), wanted, atol=1e-2)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (helper.make_node("Resize", ["x", "", "w"], ["y"], nearest_mode="ceil"), "uses Resize in a way"),
        (helper.make_node("Add", ["x", "nothing"], ["y"]), "valid ONNX models"),
        (helper.make_node("Tanh", ["x"], ["y"]), "its operator Tanh is not known here"),
        (helper.make_node("Resize", ["x", "", "w"], ["y"], mode="linear"), "uses Resize in a way"),
    ],
)
def test_a_model_with_something_unknown_is_refused_in_words(node, says, tmp_path):
    folder = tiny_model.write(tmp_path / "tiny", 3)
    model = onnx.load(folder / "inference.onnx")
    del model.graph.node[:]
    model.graph.node.append(node)
    onnx.save(model, folder / "inference.onnx")
    with pytest.raises(ConfigError, match=says):
        load_engine(model_dir.load(folder), Settings(engine="torch"))


def test_a_model_that_fails_on_every_image_is_refused_at_load(tmp_path):
    folder = tmp_path / "cut_det_model"
    shutil.copytree(zoo_models.folder("ppocrv6_tiny_det"), folder)
    model = onnx.load(folder / "inference.onnx")
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1, 1, 1.5, 1.5]), "odd"))
    resize.input[2] = "odd"
    onnx.save(model, folder / "inference.onnx")
    with pytest.raises(ConfigError, match=r"cannot run inference.onnx: Resize by \[1.0, 1.0, 1.5, 1.5\]"):
        load_engine(model_dir.load(folder), Settings(engine="torch", device=DEVICE))


def test_a_model_is_freed_with_its_last_reference():
    engine = load("ppocrv6_tiny_rec")
    engine.run({"x": lines(1, 64)}, [CTC_INDEX], None)
    gone = weakref.ref(engine)
    gc.disable()
    try:
        del engine
        assert gone() is None
    finally:
        gc.enable()


def test_arrays_that_may_not_be_written_are_taken():
    rec, batch = load("ocr_rec"), lines(1, 160)
    batch.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rec.run({"x": batch}, [CTC_INDEX], None)[CTC_INDEX].any()


def test_what_is_no_onnx_model_is_refused_in_words():
    with pytest.raises(ConfigError, match="valid ONNX models"):
        load("ppocrv4_mobile_rec")
    with pytest.raises(ConfigError, match="auto or f32, not fp16"):
        load("ocr_rec", "fp16")
