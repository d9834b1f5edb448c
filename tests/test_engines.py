"""Every engine on real models: the same numbers as the genuine service, whichever runs and whichever form goes in."""

import dataclasses
import shutil
import threading
import time

import cv2
import golden
import numpy as np
import onnx
import pytest
import tiny_model
import zoo_models
from onnxruntime.transformers.float16 import convert_float_to_float16

from ocr_serving import model_dir
from ocr_serving.deadline import Deadline
from ocr_serving.engine.base import Normalizer, SessionPool, normalize
from ocr_serving.engine.processor import has_amx
from ocr_serving.engine.select import load_engine
from ocr_serving.errors import BadInput, ClientLeft, ConfigError, DeadlineExceeded, EngineFailed, TooLarge
from ocr_serving.logistic import sigmoid
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE, DET_LOGITS
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings

OUTPUT = "save_infer_model/scale_0.tmp_1"
ENGINES = ["openvino", "paddle"]


@pytest.fixture(scope="module")
def det_image() -> np.ndarray:
    """The golden page at the size the genuine service gave its det model, uint8 (1, 960, 544, 3)."""
    return cv2.resize(golden.page(), (544, 960))[None]


def lines() -> np.ndarray:
    """The two golden crops as a uint8 batch."""
    batch = np.full((2, 48, 720, 3), 127, np.uint8)
    for row, name in zip(batch, ("crop0", "crop1"), strict=True):
        crop = golden.ops()[name]
        row[:, :714] = cv2.resize(crop, (714, 48))
    return batch


def test_normalization_equals_the_genuine_ops(det_image):
    how = zoo_models.predictor("ppocrv4_mobile_det", "paddle").model.normalization
    tensor = normalize(det_image, how)
    # cv2 5 rounds its interpolation otherwise than cv2 4.10: a step of 1/255/0.225 here and there
    np.testing.assert_allclose(tensor[0, :, ::16, ::16], golden.ops()["det_in_every_16th"], atol=0.018)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 7, 3)])
def test_a_table_normalizes_as_arithmetic_does(shape):
    how = zoo_models.predictor("ocr_det").model.normalization
    every = np.resize(np.random.default_rng(1).permutation(np.tile(np.arange(256, dtype=np.uint8), 3)), shape)
    np.testing.assert_array_equal(Normalizer(how)(every), normalize(every, how))


@pytest.mark.parametrize("engine", ENGINES)
def test_det_map_equals_the_genuine_one_in_both_input_forms(engine, det_image):
    det = zoo_models.predictor("ppocrv4_mobile_det", engine, "f32")
    x, y = golden.ops()["det_out_window_origin"]
    genuine = golden.ops()["det_out_window"]
    for form in (det_image, normalize(det_image, det.model.normalization)):
        ours = det.predict({"x": form}, [OUTPUT])[OUTPUT]
        assert ours.shape == (1, 1, 960, 544)
        window = ours[0, 0, y : y + genuine.shape[0], x : x + genuine.shape[1]]
        np.testing.assert_allclose(window, genuine, atol=1e-3)


def test_paddle_and_openvino_maps_differ_by_less_than_a_thousandth(det_image):
    maps = [
        zoo_models.predictor("ppocrv4_mobile_det", e, "f32").predict({"x": det_image}, [OUTPUT])[OUTPUT]
        for e in ENGINES
    ]
    assert np.abs(maps[0] - maps[1]).max() < 1e-3


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_onnx_engines_agree(engine, det_image):
    det = zoo_models.predictor("ppocrv5_mobile_det", engine, "f32")
    reference = zoo_models.predictor("ppocrv5_mobile_det", "openvino", "f32")
    ours = det.predict({"x": det_image}, [OUTPUT])[OUTPUT]
    tensor = normalize(det_image, det.model.normalization)
    np.testing.assert_allclose(ours, reference.predict({"x": tensor}, [OUTPUT])[OUTPUT], atol=1e-3)


@pytest.mark.parametrize(
    ("model", "engine"),
    [("ppocrv4_mobile_rec", "openvino"), ("ppocrv4_mobile_rec", "paddle"), ("ocr_rec", "onnxruntime")],
)
def test_compact_outputs_equal_the_full_one(model, engine):
    rec = zoo_models.predictor(model, engine, "f32")
    full = rec.predict({"x": lines()}, [OUTPUT])[OUTPUT]
    assert full.shape[-1] == len(rec.model.characters)
    best = rec.predict({"x": lines()}, [CTC_INDEX, CTC_SCORE])
    np.testing.assert_array_equal(best[CTC_INDEX], full.argmax(-1))
    np.testing.assert_allclose(best[CTC_SCORE], full.max(-1), atol=1e-4)
    both = rec.predict({"x": lines()}, [CTC_INDEX, OUTPUT])
    assert list(both) == [CTC_INDEX, OUTPUT]
    np.testing.assert_array_equal(both[CTC_INDEX], best[CTC_INDEX])


@pytest.mark.parametrize(
    ("model", "engine"),
    [("ppocrv4_mobile_det", "openvino"), ("ppocrv4_mobile_det", "paddle"), ("ocr_det", "openvino")],
)
def test_det_logits_are_the_map_before_its_sigmoid(model, engine, det_image):
    det = zoo_models.predictor(model, engine, "f32")
    logits = det.predict({"x": det_image}, [DET_LOGITS])[DET_LOGITS]
    probability = det.predict({"x": det_image}, [OUTPUT])[OUTPUT]
    np.testing.assert_allclose(sigmoid(logits), probability, atol=1e-5)


def test_without_fetch_the_graphs_own_outputs_come_back():
    """A genuine client reads what its own configuration lists, and fails on an output it does not know."""
    rec = zoo_models.predictor("ppocrv4_mobile_rec", "openvino", "f32")
    assert list(rec.predict({"x": lines()})) == [OUTPUT]


def test_auto_takes_the_engine_that_is_fastest_on_this_cpu():
    """8 bits where there is no AMX: by ONNX Runtime for rec, by OpenVINO for det. OpenVINO for Paddle's format."""
    rec = zoo_models.predictor("ocr_rec").engine
    assert (rec.name, rec.precision) == (("openvino", "bf16") if has_amx() else ("onnxruntime", "int8"))
    assert zoo_models.predictor("ocr_rec", "auto", "f32").engine.precision == "f32"
    det = zoo_models.predictor("ocr_det").engine
    assert (det.name, det.precision) == ("openvino", "bf16" if has_amx() else "int8")
    assert zoo_models.predictor("ppocrv4_mobile_rec").engine.name == "openvino"


@pytest.mark.parametrize(
    ("flags", "has"),
    [("avx2 amx_bf16 amx_tile", True), ("avx2 avx512f avx512_bf16 avx512_vnni", False)],
)
def test_amx_is_read_from_the_flags_of_the_processor(flags, has, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: amx\nflags\t\t: fpu {flags} pku\n")
    assert has_amx(tmp_path / "cpuinfo") is has


def test_without_a_list_of_flags_there_is_no_amx(tmp_path):
    assert not has_amx(tmp_path / "absent")


def test_in_eight_bits_a_line_s_answer_does_not_depend_on_its_neighbours():
    rec = zoo_models.predictor("ocr_rec", "onnxruntime")
    assert rec.engine.precision == "int8"
    batch = lines()
    batch[1] //= 4  # another range of values, so together they would be rounded otherwise
    together = rec.predict({"x": batch}, [OUTPUT, CTC_INDEX])
    for i in range(2):
        alone = rec.predict({"x": batch[i : i + 1]}, [OUTPUT, CTC_INDEX])
        for name in alone:
            np.testing.assert_array_equal(together[name][i], alone[name][0])


def test_in_eight_bits_no_line_is_read_for_a_client_that_left():
    rec = zoo_models.predictor("ocr_rec", "onnxruntime")
    asked = []

    def has_left():
        asked.append(len(asked))
        return len(asked) > 5

    with pytest.raises(ClientLeft):
        rec.predict({"x": np.zeros((20, 48, 32, 3), np.uint8)}, [CTC_INDEX], Deadline(time.monotonic() + 60, has_left))
    assert len(asked) == 6, "it was given up between two lines, and not at the end"


def test_answers_are_not_overwritten_by_the_next_run(det_image):
    det = zoo_models.predictor("ppocrv4_mobile_det", "openvino", "f32")
    first = det.predict({"x": det_image})[OUTPUT]
    kept = first.copy()
    det.predict({"x": 255 - det_image})
    np.testing.assert_array_equal(first, kept)


def test_concurrent_runs_equal_runs_alone():
    rec = zoo_models.predictor("ocr_rec")
    batches = [np.roll(lines(), shift, axis=2) for shift in range(0, 160, 20)]
    alone = [rec.predict({"x": b}, [CTC_INDEX])[CTC_INDEX] for b in batches]
    found: list = [None] * len(batches)

    def work(i: int) -> None:
        found[i] = rec.predict({"x": batches[i]}, [CTC_INDEX])[CTC_INDEX]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    ("feed", "says"),
    [
        ({}, "exactly these inputs: x"),
        ({"y": np.zeros((1, 32, 32, 3), np.uint8)}, "exactly these inputs: x"),
        ({"x": np.zeros((1, 3, 32, 32), np.float64)}, "float32"),
        ({"x": np.zeros((1, 4, 32, 32), np.float32)}, "float32"),
        ({"x": np.zeros((32, 32, 3), np.uint8)}, "uint8"),
        ({"x": np.zeros((0, 48, 32, 3), np.uint8)}, "empty"),
        ({"x": np.zeros((1, 32, 64, 3), np.uint8)}, "48 pixels high"),
        ({"x": np.array([None])}, "numbers"),
    ],
)
def test_a_feed_the_model_does_not_take_is_refused_in_words(feed, says):
    with pytest.raises(BadInput, match=says):
        zoo_models.predictor("ocr_rec").predict(feed)


def test_an_unknown_fetch_lists_the_known_ones():
    with pytest.raises(BadInput, match=CTC_INDEX):
        zoo_models.predictor("ocr_rec").predict({"x": lines()}, ["nope"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shape_the_graph_refuses_is_an_error_and_the_next_run_works(engine):
    det = zoo_models.predictor("ppocrv4_mobile_det", engine, "f32").engine
    [x], [output] = det.inputs, det.outputs
    with pytest.raises(EngineFailed):
        det.run({x: np.zeros((1, 33, 50, 3), np.uint8)}, [output], None)
    assert det.run({x: np.zeros((1, 32, 64, 3), np.uint8)}, [output], None)[output].shape == (1, 1, 32, 64)


def test_a_passed_deadline_never_reaches_the_engine():
    with pytest.raises(DeadlineExceeded):
        zoo_models.predictor("ocr_rec").predict({"x": lines()}, deadline=Deadline.after(-1))


def test_waiting_for_a_session_ends_at_the_deadline():
    pool = SessionPool(object, 1)
    with pool.borrow(None), pytest.raises(DeadlineExceeded), pool.borrow(Deadline.after(0.05)):
        pass
    with pool.borrow(Deadline.after(0.05)) as session:
        assert session is not None, "the session came back"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"engine": "onnxruntime"}, "cannot read inference.pdmodel"),
        ({"device": "gpu"}, "No GPU can be used"),
        ({"device": "gpu", "engine": "onnxruntime"}, "take engine torch or paddle"),
        ({"device": "gpu", "engine": "openvino"}, "take engine torch or paddle"),
        ({"device": "gpu", "gpu_id": 99, "engine": "torch"}, "No GPU can be used|There is no GPU 99"),
        ({"precision": "fp16"}, "precision"),
    ],
)
def test_what_cannot_run_is_refused_at_load(settings, says):
    model = model_dir.load(zoo_models.folder("ppocrv4_mobile_det"))
    with pytest.raises(ConfigError, match=says):
        load_engine(model, Settings(**settings))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("kind", ["det", "rec"])
def test_a_model_of_float16_weights_reads_as_that_of_float32(engine, kind, tmp_path, det_image):
    folder = tmp_path / f"half_{kind}_model"
    shutil.copytree(zoo_models.folder(f"ppocrv6_tiny_{kind}"), folder)
    (folder / model_dir.INT8_LAYERS).unlink(missing_ok=True)
    whole = onnx.load(folder / "inference.onnx")
    onnx.save(convert_float_to_float16(whole, keep_io_types=True), folder / "inference.onnx")
    half = LocalPredictor.load(str(folder), Settings(engine=engine))
    assert half.engine.precision != "int8"  # its products are not of the kind that is rounded
    full = zoo_models.predictor(f"ppocrv6_tiny_{kind}", engine, "f32")
    if kind == "det":
        maps = [p.predict({"x": det_image}, [DET_LOGITS])[DET_LOGITS] > 0 for p in (half, full)]
        assert maps[1].any()
        assert (maps[0] != maps[1]).mean() < 1e-3
    else:
        read = [p.predict({"x": lines()}, [CTC_INDEX])[CTC_INDEX] for p in (half, full)]
        assert read[1].any()
        np.testing.assert_array_equal(*read)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float16, np.uint8])
def test_an_input_of_another_type_than_declared_is_refused_in_words(engine, dtype, tmp_path):
    tiny = LocalPredictor.load(str(tiny_model.write(tmp_path / "tiny", 2)), Settings(engine=engine))
    with pytest.raises(BadInput, match=f"Input x must be float32; it is {np.dtype(dtype)}"):
        tiny.predict({"x": np.ones((1, tiny_model.SIZE), dtype)})


@pytest.mark.parametrize("precision", ["auto", "f32"])
@pytest.mark.parametrize("fetch", [DET_LOGITS, OUTPUT])
def test_an_input_that_the_model_cannot_take_harms_no_other(precision, fetch, det_image):
    engine = LocalPredictor.load(str(zoo_models.folder("ppocrv6_tiny_det")), Settings(precision=precision)).engine
    name = DET_LOGITS if fetch == DET_LOGITS else engine.outputs[0]
    good = {engine.inputs[0]: det_image[:, :96, :64]}
    before = engine.run(good, [name], None)[name]
    for _ in range(2):
        with pytest.raises(EngineFailed):
            engine.run({engine.inputs[0]: np.zeros((1, 65, 70, 3), np.uint8)}, [name], None)
        np.testing.assert_array_equal(engine.run(good, [name], None)[name], before)


def test_lines_whose_probabilities_would_be_too_many_are_refused_unread():
    folder = model_dir.load(str(zoo_models.folder("ppocrv6_tiny_rec")))
    rec = LocalPredictor.load(folder, Settings(), most_bytes=5 * 10 * len(folder.characters) * 4)
    lines = np.zeros((6, 48, 80, 3), np.uint8)
    assert rec.predict({"x": lines[:5]})[OUTPUT].shape == (5, 10, len(folder.characters))
    with pytest.raises(TooLarge, match="for 6 lines of 80 pixels take"):
        rec.predict({"x": lines})
    assert rec.predict({"x": lines}, [CTC_INDEX])[CTC_INDEX].shape == (6, 10)


@pytest.mark.parametrize("width", [1, 7])
def test_a_line_too_narrow_for_the_model_is_refused_in_words(width):
    with pytest.raises(BadInput, match="must be 8 pixels wide or more"):
        zoo_models.predictor("ocr_rec").predict({"x": np.zeros((1, 48, width, 3), np.uint8)}, [CTC_INDEX])


@pytest.mark.parametrize("shape", [(1, 65, 64, 3), (1, 64, 70, 3)])
def test_sides_that_a_det_model_does_not_take_are_refused_in_words(shape):
    det = zoo_models.predictor("ppocrv6_tiny_det")
    with pytest.raises(BadInput, match="Sides of input x must be multiples of 32"):
        det.predict({"x": np.zeros(shape, np.uint8)}, [DET_LOGITS])
    with pytest.raises(BadInput, match="Sides of input x must be multiples of 32"):
        det.predict({"x": np.zeros((1, 3, *shape[1:3]), np.float32)}, [DET_LOGITS])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_damaged_model_is_one_sentence(engine, tmp_path):
    good = zoo_models.folder("ocr_det")
    for file in good.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(ConfigError, match=r"cannot (read|load)"):
        LocalPredictor.load(str(tmp_path), Settings(engine=engine))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_dictionary_of_another_size_than_the_model_is_refused(engine):
    rec = model_dir.load(zoo_models.folder("ocr_rec"))
    shorter = dataclasses.replace(rec, characters=rec.characters[:-10])
    with pytest.raises(
        ConfigError, match=f"{len(rec.characters) - 10} entries, and the model tells {len(rec.characters)}"
    ):
        LocalPredictor.load(shorter, Settings(engine=engine))
