"""Model folders as users have them, above all inference.yml: what is understood, what is refused in one sentence."""

import numpy as np
import pytest
import tiny_model

from ocr_serving import model_dir
from ocr_serving.errors import ConfigError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def folder(tmp_path):
    return tiny_model.write(tmp_path / "tiny", 2)


def loaded(folder, text):
    (folder / "inference.yml").write_text(text, encoding="utf-8")
    return model_dir.load(folder)


@pytest.mark.parametrize(
    ("op", "scale", "mean", "std"),
    [
        ("NormalizeImage: null", 1 / 255, *IMAGENET),
        ("NormalizeImage", 1 / 255, *IMAGENET),
        ('NormalizeImage: {scale: "1./255.", mean: [0, 1, 2], std: [1, 2, 3]}', 1 / 255, (0, 1, 2), (1, 2, 3)),
        ("NormalizeImage: {scale: 0.5, order: hwc}", 0.5, *IMAGENET),
        ("RecResizeImg: {image_shape: [3, 32, 320]}", 1 / 255, (0.5,) * 3, (0.5,) * 3),
    ],
)  # fmt: skip
def test_how_pixels_are_normalised(folder, op, scale, mean, std):
    found = loaded(folder, f"PreProcess:\n  transform_ops:\n  - DecodeImage: null\n  - {op}\n").normalization
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose([found.mean, found.std], [mean, std], rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "PreProcess: null",
        "PreProcess: {transform_ops: null}",
        "PreProcess: {transform_ops: [null, 1: 2]}",
        "PostProcess: null",
        "Global: {}",
    ],
)
def test_a_model_that_is_only_served_needs_to_say_nothing(folder, text):
    found = loaded(folder, text)
    assert (found.normalization, found.characters, found.image_height, found.derived) == (None, (), None, ())


def test_the_dictionary_of_a_rec_model(folder):
    resize = "PreProcess: {transform_ops: [RecResizeImg: {image_shape: [3, 32, 320]}]}"
    found = loaded(folder, f"{resize}\nPostProcess: {{character_dict: [a, 1, 中]}}")
    assert (found.characters, found.image_height) == (("", "a", "1", "中", " "), 32)
    assert found.derived == (model_dir.CTC_INDEX, model_dir.CTC_SCORE)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Expected `object`, got `null`"),
        ("{", "it is not valid YAML"),
        ("PreProcess: [1]", r"Expected `object \| null`, got `array` - at `\$.PreProcess`"),
        ("PreProcess: {transform_ops: 3}", "transform_ops"),
        ("PreProcess: {transform_ops: [NormalizeImage: {mean: [0.5]}]}", r"`\$.mean`"),
        ("PreProcess: {transform_ops: [NormalizeImage: {mean: 0.5}]}", r"`\$.mean`"),
        ("PreProcess: {transform_ops: [NormalizeImage: {std: [0, 0, 0]}]}", r"`\$.std\[0\]`"),
        ("PreProcess: {transform_ops: [NormalizeImage: {scale: 0}]}", r"`\$.scale`"),
        ("PreProcess: {transform_ops: [NormalizeImage: {mean: [.nan, 0, 0]}]}", r"`\$.mean\[0\]`"),
        ("PreProcess: {transform_ops: [RecResizeImg: null]}", "missing required field `image_shape`"),
        ("PreProcess: {transform_ops: [RecResizeImg: {image_shape: null}]}", "image_shape"),
        ("PreProcess: {transform_ops: [RecResizeImg: {image_shape: [3, 0, 320]}]}", "image_shape"),
        ("PostProcess: DB", "PostProcess"),
        ("PostProcess: {character_dict: ppocr_keys_v1.txt}", r"Expected `array \| null`, got `str`"),
    ],
)
def test_what_is_wrong_in_it_is_said_in_one_sentence(folder, text, sentence):
    with pytest.raises(ConfigError, match=rf"inference.yml is damaged: .*{sentence}"):
        loaded(folder, text)


def test_a_folder_that_the_system_refuses_is_one_sentence():
    with pytest.raises(ConfigError, match=r"cannot be read: File name too long|does not exist"):
        model_dir.load("x" * 300)
