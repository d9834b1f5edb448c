"""The in-process predictor under its old name, on real models."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import zoo_models

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, ConfigError, DeadlineExceeded
from paddle_serving_app.local_predict import LocalPredictor

FETCH = "save_infer_model/scale_0.tmp_1"
IMAGE = np.random.default_rng(3).standard_normal((3, 64, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def det():
    predictor = LocalPredictor()
    predictor.load_model_config(str(zoo_models.folder("ppocrv6_tiny_det")), use_gpu=False, gpu_id=0, thread_num=2)
    return predictor


@pytest.fixture(scope="module")
def expected(det):
    found = det.predict(feed={"x": IMAGE[None]}, fetch=[FETCH], batch=True)
    assert list(found) == [FETCH]
    assert found[FETCH].shape == (1, 1, 64, 96)
    assert (found[FETCH].dtype, found[FETCH].any()) == (np.float32, True)
    return found[FETCH]


def test_batch_false_puts_the_batch_dimension_in_front_and_leaves_the_feed_alone(det, expected):
    """Quirk of the original: the second call with the same dict failed, since the first had changed it."""
    feed = {"x": IMAGE}
    for _ in range(2):
        np.testing.assert_array_equal(det.predict(feed=feed, fetch=FETCH)[FETCH], expected)
    assert feed["x"] is IMAGE


@pytest.mark.parametrize("fetch", [None, [], [FETCH, "no such output"], FETCH])
def test_fetch_may_be_left_out_or_partly_unknown(det, expected, fetch):
    found = det.predict({"x": IMAGE}, fetch)
    assert list(found) == [FETCH]
    np.testing.assert_array_equal(found[FETCH], expected)


def test_unknown_fetches_name_the_outputs_in_order(det, expected):
    found = det.predict({"x": IMAGE}, ["sigmoid_0.tmp_0", "second"])
    assert list(found) == ["sigmoid_0.tmp_0"]
    np.testing.assert_array_equal(found["sigmoid_0.tmp_0"], expected)


def test_feeds_are_cast_to_the_declared_type(det, expected):
    np.testing.assert_array_equal(det.predict([{"x": IMAGE.astype(np.float64)}], FETCH)[FETCH], expected)


def test_uint8_images_are_normalised_by_the_engine(det):
    image = np.full((64, 96, 3), 128, np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    tensor = ((image / 255 - mean) / std).transpose(2, 0, 1)
    normalised, raw = det.predict({"x": tensor}, FETCH), det.predict({"x": image}, FETCH)
    np.testing.assert_allclose(raw[FETCH], normalised[FETCH], atol=0.02)


def test_keys_that_are_no_inputs_are_passed_over(det, expected):
    found = det.predict({"x": IMAGE, "img_list": [1, 2], "x.lod": [0, 1]}, FETCH)
    np.testing.assert_array_equal(found[FETCH], expected)


@pytest.mark.parametrize(
    ("feed", "word"),
    [
        (None, "feed"),
        ("x", "dict"),
        ({}, "exactly these inputs: x"),
        ({"x": [1.0, 2.0]}, "shape of feed tensor x"),
        ({"x": np.array([[["text"]]])}, "cannot become"),
        ({"x": IMAGE[0]}, "normalised"),
    ],
)
def test_other_feeds_are_refused_in_words(det, feed, word):
    with pytest.raises(BadInput, match=word):
        det.predict(feed, FETCH)


@pytest.mark.parametrize("feed", [None, {"x": [1.0]}])
def test_where_the_original_raised_value_errors_these_are_some(det, feed):
    with pytest.raises(ValueError, match="feed"):
        det.predict(feed, FETCH)


def test_lists_fill_the_declared_shape(tmp_path):
    from ocr_serving import model_writer
    from ocr_serving.model_dir import Variable

    model = zoo_models.folder("ppocrv6_tiny_det")
    for file in ("inference.onnx", "inference.yml"):
        (tmp_path / file).symlink_to(model / file)
    x, y = Variable("x", "x", 1, (3, 64, 96)), Variable("y", FETCH, 1, ())
    model_writer.write_conf(tmp_path / "serving_server_conf.prototxt", [x], [y])
    predictor = LocalPredictor()
    predictor.load_model_config(str(tmp_path))
    flat, nested = (predictor.predict({"x": value}, FETCH)[FETCH] for value in (IMAGE.ravel().tolist(), IMAGE.tolist()))
    np.testing.assert_array_equal(flat, predictor.predict({"x": IMAGE}, FETCH)[FETCH])
    np.testing.assert_array_equal(nested, flat)


def test_a_deadline_is_kept(det):
    with pytest.raises(DeadlineExceeded):
        det.predict({"x": IMAGE}, FETCH, deadline=Deadline.after(0))


def test_options_without_effect_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        LocalPredictor().load_model_config(
            str(zoo_models.folder("ppocrv6_tiny_det")), use_trt=True, precision="int8", use_mkldnn=True, use_calib=False
        )
    assert "use_trt, use_mkldnn: no effect" in caplog.text
    assert "precision int8: no effect" in caplog.text


def test_a_model_that_cannot_be_loaded_is_an_error_not_the_end_of_the_process_group():
    """Quirk of the original: it killed its own process group."""
    code = (
        "from paddle_serving_app.local_predict import LocalPredictor\n"
        "try:\n    LocalPredictor().load_model_config('no_such_model')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, start_new_session=True
    )
    assert run.stdout.startswith("ConfigError Model folder no_such_model does not exist")


def test_predict_before_load_is_said_in_words():
    with pytest.raises(ConfigError, match="load_model_config"):
        LocalPredictor().predict({"x": IMAGE})
