"""`python3 -m paddle_serving_client.convert` on real models of each format, and the folders it writes, served."""

import subprocess
import sys

import numpy as np
import pytest
import zoo_models
from google.protobuf import text_format

from ocr_serving import model_dir
from ocr_serving.compat import convert_command
from ocr_serving.compat.convert import inference_model_to_serving
from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings
from ocr_serving.wire.general_model_config_pb2 import GeneralModelConfig

MAKE_PIR = """
import sys, paddle
class Net(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 3)
        self.linear = paddle.nn.Linear(4, 5)
    def forward(self, x, n):
        return self.linear(self.conv(x).mean([2, 3])), n * 2
specs = [paddle.static.InputSpec([None, 3, None, 32], "float32", "x"), paddle.static.InputSpec([None, 2], "int64", "n")]
paddle.jit.save(paddle.jit.to_static(Net(), input_spec=specs, full_graph=True), sys.argv[1] + "/inference")
"""


def convert(*args, cwd):
    command = [sys.executable, "-m", "paddle_serving_client.convert", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def copy_of(name, folder, *files):
    """A publisher's folder: the zoo's model without what makes it a serving folder."""
    folder.mkdir()
    for file in files:
        (folder / file).symlink_to(zoo_models.folder(name) / file)
    return folder


def names_and_shapes(variables):
    return [(v.name, v.alias, v.elem_type, v.shape) for v in variables]


def test_paddle_model_is_written_as_the_original_wrote_it(tmp_path):
    copy_of("ppocrv4_mobile_rec", tmp_path / "model", "inference.pdmodel", "inference.pdiparams")
    (tmp_path / "model" / "inference.pdmodel").rename(tmp_path / "model" / "__model__")
    (tmp_path / "model" / "inference.pdiparams").rename(tmp_path / "model" / "__params__")
    run = convert("--dirname", "model", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert sorted(p.name for p in (tmp_path / "serving_server").iterdir()) == [
        "model.pdmodel",
        "params.pdiparams",
        "serving_server_conf.prototxt",
        "serving_server_conf.stream.prototxt",
    ]
    assert sorted(p.name for p in (tmp_path / "serving_client").iterdir()) == [
        "serving_client_conf.prototxt",
        "serving_client_conf.stream.prototxt",
    ]
    text = (tmp_path / "serving_client" / "serving_client_conf.prototxt").read_text()
    assert text == (tmp_path / "serving_server" / "serving_server_conf.prototxt").read_text()
    binary = (tmp_path / "serving_client" / "serving_client_conf.stream.prototxt").read_bytes()
    assert GeneralModelConfig.FromString(binary) == text_format.Parse(text, GeneralModelConfig())
    model = model_dir.load(tmp_path / "serving_server")
    assert names_and_shapes(model.feeds) == [("x", "x", 1, (3, 48))], "dynamic dimensions are dropped"
    assert names_and_shapes(model.fetches) == [("softmax_11.tmp_0", "softmax_11.tmp_0", 1, (6625,))]


@pytest.mark.parametrize("names", [("model.pdmodel", "params.pdiparams"), ("__model__", "__params__")])
@pytest.mark.parametrize("engine", ["openvino", "paddle"])
def test_a_converted_paddle_model_answers_as_before(tmp_path, engine, names):
    """The original's names load although their stems differ, and those of old models, which its converter kept."""
    inference_model_to_serving(
        str(zoo_models.folder("ppocrv4_mobile_rec")),
        str(tmp_path / "server"),
        str(tmp_path / "client"),
        fetch_alias_names="out",
    )
    for file, name in zip(("inference.pdmodel", "inference.pdiparams"), names, strict=True):
        (tmp_path / "server" / file).rename(tmp_path / "server" / name)
    predictor = LocalPredictor.load(str(tmp_path / "server"), Settings(engine=engine, precision="f32"))
    original = zoo_models.predictor("ppocrv4_mobile_rec", engine, "f32")
    feed = {"x": np.random.default_rng(0).integers(0, 255, (1, 48, 96, 3), np.uint8)}
    (expected,) = original.predict(feed).values()
    found = predictor.predict(feed, ["out", CTC_INDEX])
    np.testing.assert_array_equal(found["out"], expected)
    np.testing.assert_array_equal(found[CTC_INDEX], expected.argmax(-1))


def test_onnx_model_with_its_inference_yml_becomes_a_complete_folder(tmp_path):
    copy_of("ppocrv6_tiny_rec", tmp_path / "model", "inference.onnx", "inference.yml")
    run = convert(
        *("--dirname", "model", "--serving_server", "a/rec_model", "--serving_client", "a/rec_client"),
        *("--feed_alias_names", "x", "--fetch_alias_names", "save_infer_model/scale_0.tmp_1"),
        cwd=tmp_path,
    )
    assert (run.returncode, run.stderr) == (0, "")
    model, zoo = model_dir.load(tmp_path / "a" / "rec_model"), model_dir.load(zoo_models.folder("ppocrv6_tiny_rec"))
    assert (model.characters, model.image_height) == (zoo.characters, zoo.image_height)
    assert [v.alias for v in model.fetches] == ["save_infer_model/scale_0.tmp_1", CTC_INDEX, CTC_SCORE]
    _, client_fetches = model_dir.read_conf(tmp_path / "a" / "rec_client" / "serving_client_conf.prototxt")
    assert [v.alias for v in client_fetches] == ["save_infer_model/scale_0.tmp_1"]


def test_pir_model_of_several_inputs_and_outputs(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "make_pir.py").write_text(MAKE_PIR)  # a file, since paddle reads the source of what it compiles
    subprocess.run([sys.executable, "make_pir.py", "model"], cwd=tmp_path, check=True, capture_output=True)
    run = convert("--dirname", "model", "--feed_alias_names", "image, number", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    model = model_dir.load(tmp_path / "serving_server")
    assert names_and_shapes(model.feeds) == [("x", "image", 1, (3, 32)), ("n", "number", 0, (2,))]
    assert [v.alias for v in model.fetches] == sorted(v.name for v in model.fetches)
    assert sorted((v.elem_type, v.shape) for v in model.fetches) == [(0, (2,)), (1, (5,))]
    predictor = LocalPredictor.load(model, Settings(engine="paddle"))
    found = predictor.predict({"image": np.ones((1, 3, 32, 32), np.float32), "number": np.array([[3, 4]])})
    by_type = {array.dtype: array for array in found.values()}
    assert by_type[np.dtype(np.int64)].tolist() == [[6, 8]]
    assert by_type[np.dtype(np.float32)].shape == (1, 5)


def test_show_proto_prints_and_writes_nothing(tmp_path):
    model = copy_of("ppocrv6_tiny_det", tmp_path / "model", "inference.onnx")
    run = convert("--dirname", model, "--show_proto", "True", cwd=tmp_path)
    conf = text_format.Parse(run.stdout, GeneralModelConfig())
    assert [v.name for v in conf.feed_var] == ["x"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def contents_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--dirname", "nowhere"], "nowhere holds no *.onnx or *.pdmodel"),
        (["--dirname", "model", "--model_filename", "x.pdmodel"], "model holds no x.pdmodel"),
        (["--dirname", "model", "--feed_alias_names", "a,b"], "please check the input --feed_alias_names"),
        (["--dirname", "damaged"], "inference.json cannot be read|inference.json is damaged"),
        (["--dirname", "model", "--serving_server", "taken"], "taken holds another model already, inference.onnx"),
        (["--dirname", "model", "--serving_server", "other"], "other holds another model already, a.pdiparams"),
    ],
)
def test_what_cannot_be_converted_is_said_in_a_line(tmp_path, monkeypatch, capsys, arguments, sentence):
    copy_of("ppocrv4_mobile_det", tmp_path / "model", "inference.pdmodel", "inference.pdiparams")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "inference.json").write_text('{"program": 1}')
    (tmp_path / "damaged" / "inference.pdiparams").touch()
    copy_of("ppocrv6_tiny_det", tmp_path / "taken", "inference.onnx")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.pdiparams").touch()
    monkeypatch.chdir(tmp_path)
    before = contents_below(tmp_path)
    assert convert_command.main(arguments) == 2
    assert contents_below(tmp_path) == before
    output = capsys.readouterr()
    assert output.out == ""
    assert any(part in output.err for part in sentence.split("|"))
    assert output.err.count("\n") == 1


def test_the_python_name_of_the_original_works(tmp_path):
    from paddle_serving_client import io

    found = io.inference_model_to_serving(
        str(zoo_models.folder("ppocrv6_tiny_det")),
        serving_server=str(tmp_path / "s"),
        serving_client=str(tmp_path / "c"),
    )
    assert found == (["x"], [model_dir.load(tmp_path / "s").fetches[0].name])
    with pytest.raises(ConfigError):
        io.inference_model_to_serving(str(tmp_path))
