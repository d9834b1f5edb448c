"""The command that prepares a det model for 8 bits, and what a service makes of its file."""

import shutil

import openvino
import pytest
import zoo_models

from ocr_serving import calibration, model_dir, samples
from ocr_serving.engine import int8_layers
from ocr_serving.engine.processor import has_amx
from ocr_serving.errors import ConfigError
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings

FLOATS = "bf16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
IN_8_BITS = "bf16" if has_amx() else "int8"


@pytest.fixture
def folder(tmp_path):
    """A det model without int8.json."""
    copy = tmp_path / "det_model"
    shutil.copytree(zoo_models.folder("ppocrv6_tiny_det"), copy)
    (copy / model_dir.INT8_LAYERS).unlink()
    return copy


def precision(folder, wanted="auto"):
    return LocalPredictor.load(str(folder), Settings(engine="openvino", precision=wanted)).engine.precision


def test_a_calibrated_model_runs_in_8_bits_unless_f32_is_asked_for(folder, tmp_path, capsys):
    assert precision(folder) == FLOATS
    picture = samples.save(samples.render()[2], tmp_path)
    assert calibration.main([str(folder), str(picture)]) == 0
    assert capsys.readouterr().out == f"{folder / model_dir.INT8_LAYERS}\n"
    assert precision(folder) == IN_8_BITS
    assert precision(folder, "f32") == "f32"


def test_a_file_made_for_other_weights_is_said_and_not_used(folder, caplog):
    shutil.copy(zoo_models.folder("ppocrv6_small_det") / model_dir.INT8_LAYERS, folder)
    assert int8_layers.read(model_dir.load(folder)) == ()
    assert "made for another model and is not used" in caplog.text
    assert f"python3 -m ocr_serving.calibration {folder}" in caplog.text


def test_a_file_of_another_version_is_said_and_not_used(folder, caplog):
    file = zoo_models.folder("ppocrv6_tiny_det") / model_dir.INT8_LAYERS
    (folder / model_dir.INT8_LAYERS).write_bytes(file.read_bytes().replace(b'"name": "', b'"name": "Older.', 1))
    assert precision(folder) == FLOATS
    assert IN_8_BITS == "bf16" or "made for another model and is not used" in caplog.text


def test_a_picture_that_cannot_be_read_is_named(folder, tmp_path, capsys):
    note = tmp_path / "note.txt"
    note.write_text("no picture")
    assert calibration.main([str(folder), str(note)]) == 2
    assert capsys.readouterr().err.startswith(f"{note}: This is not an image file")
    assert calibration.main([str(folder), str(tmp_path / "no.png")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'no.png'} cannot be read: No such file or directory.\n"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"model_sha256": "", "layers": [{"name": 1}]}', b"\xff"])
def test_a_damaged_file_is_one_sentence(folder, content):
    (folder / model_dir.INT8_LAYERS).write_bytes(content)
    with pytest.raises(ConfigError, match=r"int8\.json is damaged"):
        int8_layers.read(model_dir.load(folder))


def test_the_zoo_s_file_is_what_the_command_writes(folder):
    """To rounding: a processor adds up in its own order."""
    calibration.calibrate(model_dir.load(folder), calibration.drawn_pictures())
    found = int8_layers.read(model_dir.load(folder))
    expected = int8_layers.read(model_dir.load(zoo_models.folder("ppocrv6_tiny_det")))
    assert [layer.name for layer in found] == [layer.name for layer in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.scale == pytest.approx(theirs.scale, rel=0.02)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.02, abs=1e-3)
        assert ours.error == pytest.approx(theirs.error, abs=0.02 * max(map(abs, theirs.error)))


def test_what_is_no_det_model_or_no_picture_is_one_sentence(folder, capsys, tmp_path):
    (tmp_path / "text.txt").write_text("no picture")
    for arguments, sentence in (
        ([str(zoo_models.folder("ocr_rec"))], "is no det model"),
        ([str(folder), str(tmp_path / "text.txt")], "image"),
        ([str(folder), str(tmp_path / "absent.png")], "absent.png"),
        ([str(tmp_path / "absent")], "does not exist"),
    ):
        assert calibration.main(arguments) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert "Traceback" not in error
