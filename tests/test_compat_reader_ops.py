"""The reader ops against the genuine ones, op by op where no listed quirk is involved; and the quirks, fixed."""

import base64
import importlib
import inspect
from pathlib import Path

import cv2
import golden
import numpy as np
import pytest
import rec_folder

from ocr_serving.errors import BadInput, ConfigError
from paddle_serving_app import reader

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PAGE = golden.FOLDER / "page.webp"


def probability_map():
    """The genuine det output (1, 1, 960, 544): the golden arrays keep the window that is not zero."""
    ops = golden.ops()
    x, y = ops["det_out_window_origin"]
    window = ops["det_out_window"]
    full = np.zeros((1, 1, 960, 544), np.float32)
    full[0, 0, y : y + window.shape[0], x : x + window.shape[1]] = window
    return full


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("paddle_serving_app.reader", "DBPostProcess OCRReader String2Image"),
        ("paddle_serving_app.reader.image_reader", "DBPostProcess String2Image"),
        ("paddle_serving_app.reader.ocr_reader", "OCRReader"),
        ("paddle_serving_client", "Client HttpClient"),
        ("paddle_serving_client.client", "Client"),
        ("paddle_serving_client.httpclient", "HttpClient"),
    ],
)
def test_the_modules_that_files_written_for_the_original_import_from(module, names):
    found = importlib.import_module(module)
    assert set(names.split()) <= set(found.__all__)
    assert all(inspect.isclass(getattr(found, name)) for name in found.__all__)


def test_det_input_equals_the_genuine_ops():
    resize = reader.Resize((544, 960))  # the size that the genuine ResizeByFactor chose, a block too narrow
    det_input = reader.Sequential([resize, reader.Div(255), reader.Normalize(MEAN, STD), reader.Transpose((2, 0, 1))])
    found = det_input(golden.page())
    assert (found.dtype, found.shape) == (np.float32, (3, 960, 544))
    # cv2 5 rounds its interpolation otherwise than cv2 4.10: a grey level here and there
    np.testing.assert_allclose(found[:, ::16, ::16], golden.ops()["det_in_every_16th"], atol=1.01 / 255 / min(STD))


def test_normalize_takes_either_order_of_axes():
    image = reader.Div(255)(golden.page()[:32, :64])
    last = reader.Normalize(MEAN, STD)(image)
    first = reader.Normalize(MEAN, STD, channel_first=True)(image.transpose(2, 0, 1))
    np.testing.assert_array_equal(first.transpose(1, 2, 0), last)
    np.testing.assert_allclose(last, (image - MEAN) / STD, atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(960, 544), (32, 64), (640, 640)])
def test_resize_by_factor_leaves_fitting_sizes_alone(width, height):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(reader.ResizeByFactor(32, 960)(image), image)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1074, 600), (960, 544)), ((720, 601), (736, 608)), ((65, 40), (64, 32)), ((1, 1), (32, 32))],
)
def test_resize_by_factor_drops_no_block(size, expected):
    """Quirk of the original: 1074 became 959 and then 896; 720 became 672."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    assert reader.ResizeByFactor(32, 960)(image).shape == (expected[1], expected[0], 3)


def test_boxes_equal_the_genuine_ops_but_for_its_truncation():
    ops = golden.ops()
    params = {"thresh": 0.3, "box_thresh": 0.5, "max_candidates": 1000, "unclip_ratio": 1.5, "min_size": 3}
    (boxes,) = reader.DBPostProcess(params)(probability_map(), [[960 / 1150, 544 / 720]])
    assert boxes.dtype == np.float32
    assert boxes.shape == ops["boxes_raw"].shape
    assert np.abs(boxes - ops["boxes_raw"]).max() < 3
    assert (boxes != np.trunc(boxes)).any(), "the original truncated boxes to int16"


def test_boxes_of_several_images_scale_with_their_own_ratios():
    maps = np.repeat(probability_map(), 2, axis=0)
    one, two = reader.DBPostProcess({})(maps, [[1, 1], [0.5, 0.25]])
    np.testing.assert_allclose(two, one * [4, 2])


def test_filter_and_order_equal_the_genuine_ops():
    ops = golden.ops()
    filtered = reader.FilterBoxes(10, 10)(ops["boxes_raw"], [1150, 720])
    np.testing.assert_array_equal(filtered, ops["boxes_filtered"])
    in_order = reader.SortedBoxes()(filtered)
    assert isinstance(in_order, list)
    np.testing.assert_array_equal(in_order, ops["boxes_sorted"])
    near, far = (
        np.array([[[60, 0], [90, 0], [90, 9], [60, 9]], [[0, y], [30, y], [30, y + 9], [0, y + 9]]]) for y in (9, 10)
    )
    assert reader.SortedBoxes()(near)[0][0, 0] == 0, "tops less than 10 pixels apart are one line"
    assert reader.SortedBoxes()(far)[0][0, 0] == 60


def test_filter_drops_small_boxes_and_clips_the_others():
    def box(left, top, right, bottom):
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)

    kept = reader.FilterBoxes(10, 10)([box(0, 0, 10.9, 40), box(0, 0, 40, 10.9), box(-5, -5, 60, 20)], [100, 50])
    np.testing.assert_array_equal(kept, [box(0, 0, 49, 20)])


def test_a_page_without_boxes_goes_through_all_ops():
    """Quirk of the original: an image without text ended in an exception."""
    (boxes,) = reader.DBPostProcess({})(np.zeros((1, 1, 64, 96), np.float32), [[1.0, 1.0]])
    filtered = reader.FilterBoxes(10, 10)(boxes, [64, 96])
    assert filtered.tolist() == []
    assert reader.SortedBoxes()(filtered) == []


@pytest.mark.parametrize("i", [0, 1])
def test_crops_equal_the_genuine_op_and_leave_the_box_alone(i):
    box = golden.ops()["boxes_sorted"][i].copy()
    crop = reader.GetRotateCropImage()(golden.page(), box)
    assert np.abs(crop.astype(int) - golden.ops()[f"crop{i}"]).max() <= 2
    np.testing.assert_array_equal(box, golden.ops()["boxes_sorted"][i])


@pytest.mark.parametrize(("size", "expected"), [(100, (100, 160, 3)), ((30, 20), (20, 30, 3))])
def test_resize_takes_a_shorter_side_or_a_size(size, expected):
    image = np.zeros((720, 1150, 3), np.uint8)
    assert reader.Resize(size)(image).shape == expected
    assert max(reader.Resize(size, max_size=25)(image).shape) == 25


def test_small_ops():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(reader.CenterCrop(2)(image), image[1:3, 2:4])
    np.testing.assert_array_equal(reader.RGB2BGR()(image), image[..., ::-1])
    np.testing.assert_array_equal(reader.BGR2RGB()(image), image[..., ::-1])


def test_images_from_a_file_a_string_or_base64_are_the_same():
    data = PAGE.read_bytes()
    for image in (
        reader.File2Image()(str(PAGE)),
        reader.String2Image()(data),
        reader.Base64ToImage()(base64.b64encode(data).decode()),
    ):
        np.testing.assert_array_equal(image, golden.page())


@pytest.mark.parametrize(
    ("op", "argument", "word"),
    [
        (reader.File2Image(), "no/such.jpg", "cannot be read"),
        (reader.String2Image(), b"not an image", "not an image file"),
        (reader.Base64ToImage(), "abcde", "not base64"),
        (reader.URL2Image(), "http://127.0.0.1:1/a.jpg", "base64"),
    ],
)
def test_what_is_no_image_is_refused_in_words(op, argument, word):
    with pytest.raises(BadInput, match=word):
        op(argument)


class TestOCRReader:
    @pytest.fixture
    def dictionary(self, tmp_path, monkeypatch):
        """ppocr_keys_v1.txt in the working directory, as 0.9 wanted it, with a flag that is two characters."""
        (tmp_path / "ppocr_keys_v1.txt").write_text("a\nb\n🇩🇪\n", encoding="utf-8", newline="\r\n")
        monkeypatch.chdir(tmp_path)

    def test_signature_is_the_originals(self):
        assert list(inspect.signature(reader.OCRReader).parameters) == [
            "algorithm",
            "image_shape",
            "char_type",
            "batch_num",
            "char_dict_path",
        ]

    @pytest.mark.usefixtures("dictionary")
    def test_input_equals_the_genuine_op(self):
        """The genuine width, 475, was computed for a height of 32; given as the width, all else is equal."""
        ops = golden.ops()
        ocr_reader = reader.OCRReader(image_shape=[3, 48, 475], char_type="french")
        batch = np.stack([ocr_reader.resize_norm_img(ops[name], 550 / 37) for name in ("crop0", "crop1")])
        assert (batch.dtype, batch.shape) == (np.float32, (2, 3, 48, 475))
        np.testing.assert_allclose(batch[:, :, ::3, ::5], ops["rec_in_every_3rd"], atol=0.0079)

    @pytest.mark.usefixtures("dictionary")
    def test_width_follows_the_height(self):
        """Quirk of the original: with a height of 48, lines were squeezed into the width for 32."""
        image = np.zeros((48, 480, 3), np.uint8)
        assert reader.OCRReader(image_shape=[3, 48, 320]).resize_norm_img(image, 10).shape == (3, 48, 480)
        assert reader.OCRReader().resize_norm_img(image, 10).shape == (3, 32, 320)

    @pytest.mark.usefixtures("dictionary")
    def test_preprocess_gives_the_first_crop_as_wide_as_the_widest(self):
        ocr_reader = reader.OCRReader(image_shape=[3, 48, 320])
        crops = [golden.ops()[name] for name in ("crop0", "crop1")]
        ratios = [crop.shape[1] / crop.shape[0] for crop in crops]
        np.testing.assert_array_equal(ocr_reader.preprocess(crops[:1]), ocr_reader.resize_norm_img(crops[0], ratios[0]))
        np.testing.assert_array_equal(ocr_reader.preprocess(crops), ocr_reader.resize_norm_img(crops[0], max(ratios)))
        with pytest.raises(ValueError, match="at least one image"):
            ocr_reader.preprocess([])

    @pytest.mark.usefixtures("dictionary")
    def test_postprocess_of_the_first_models_is_refused_in_words(self):
        with pytest.raises(ConfigError, match="call postprocess_ocrv2"):
            reader.OCRReader().postprocess({"ctc_greedy_decoder_0.tmp_0": np.zeros((1, 1))}, with_score=True)

    @pytest.mark.usefixtures("dictionary")
    def test_padding_is_zero(self):
        padded = reader.OCRReader().resize_norm_img(np.full((32, 32, 3), 255, np.uint8), 3)
        assert padded[:, :, :32].min() == 1
        assert not padded[:, :, 32:].any()

    @pytest.mark.usefixtures("dictionary")
    def test_texts_come_with_scores(self):
        steps = [[1, 1, 0, 1, 4], [0, 3, 3, 2, 0], [0, 0, 0, 0, 0]]
        probabilities = np.full((3, 5, 5), 0.1, np.float32)
        for row, classes in enumerate(steps):
            probabilities[row, range(5), classes] = 0.5
        found = reader.OCRReader().postprocess_ocrv2({"save_infer_model/scale_0.tmp_1": probabilities}, with_score=True)
        assert found == [("aa ", 0.5), ("🇩🇪b", 0.5), ("", 0.0)]
        assert reader.OCRReader().postprocess_ocrv2({"save_infer_model/scale_0.tmp_1": probabilities[:0]}) == []

    @pytest.mark.usefixtures("dictionary")
    def test_a_dictionary_of_another_model_is_noticed(self):
        with pytest.raises(BadInput, match="6 classes and the dictionary 5"):
            reader.OCRReader().postprocess_ocrv2({"save_infer_model/scale_0.tmp_1": np.zeros((1, 5, 6), np.float32)})

    def test_model_folder_brings_height_and_dictionary(self, tmp_path, monkeypatch):
        """Without arguments, as the examples call it; an old dictionary lying around does not count."""
        import zoo_models

        model = zoo_models.folder("ppocrv6_tiny_rec")
        (tmp_path / "ocr_rec_model").symlink_to(model)
        (tmp_path / "ppocr_keys_v1.txt").write_text("a\nb\n", encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        ocr_reader = reader.OCRReader()
        line = cv2.imread(str(Path(__file__).parents[1] / "rec_img" / "line_1.png"))
        tensor = ocr_reader.resize_norm_img(line, line.shape[1] / line.shape[0])
        assert tensor.shape[1] == 48
        ((text, score),) = ocr_reader.postprocess_ocrv2(
            zoo_models.predictor("ppocrv6_tiny_rec").predict({"x": tensor[None]})
        )
        assert len(text) > 3
        assert score > 0.8

    def test_another_models_output_is_never_read_with_the_folders_dictionary(self, tmp_path, monkeypatch):
        """0.9 read every model with ppocr_keys_v1.txt; beside ocr_rec_model/ that gave other characters, no error."""
        monkeypatch.chdir(tmp_path)
        rec_folder.write(tmp_path / "ocr_rec_model", "uvwxyz")
        probabilities = np.eye(5, dtype=np.float32)[None, [1, 0, 3, 2]]
        outputs = {"save_infer_model/scale_0.tmp_1": probabilities}
        with pytest.raises(BadInput, match=r"5 classes and the dictionary 8.*char_dict_path=FILE"):
            reader.OCRReader().postprocess_ocrv2(outputs)
        (tmp_path / "ppocr_keys_v1.txt").write_text("a\nb\nc\n", encoding="utf-8")
        for ocr_reader in (reader.OCRReader(), reader.OCRReader(char_dict_path="./ppocr_keys_v1.txt")):
            assert ocr_reader.postprocess_ocrv2(outputs) == [("acb", 1.0)]
        seven = np.eye(7, dtype=np.float32)[None, [1, 6]]
        found = reader.OCRReader().postprocess_ocrv2({"save_infer_model/scale_0.tmp_1": seven})
        assert found == [("uz", 1.0)], "a model without the space at the end"
        assert reader.OCRReader().postprocess_ocrv2({"save_infer_model/scale_0.tmp_1": probabilities[:0]}) == []

    def test_a_dictionary_that_was_named_is_said_by_its_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        rec_folder.write(tmp_path / "ocr_rec_model", "uvwxyz")
        with pytest.raises(ConfigError, match=r"dictionary keys\.txt cannot be read: No such file"):
            reader.OCRReader(char_dict_path="keys.txt")
        (tmp_path / "keys.txt").write_bytes("甲".encode("gbk"))
        with pytest.raises(ConfigError, match="UTF-8"):
            reader.OCRReader(char_dict_path="keys.txt")

    def test_a_missing_dictionary_is_said_in_words(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match="--get_model ocr_rec"):
            reader.OCRReader()


def test_candidates_over_the_limit_are_dropped_as_in_the_original():
    probability = np.zeros((1, 1, 320, 320), np.float32)
    for y in range(10, 300, 30):
        probability[0, 0, y : y + 12, 20:200] = 0.9
    for limit in (4, 100):
        quads = reader.DBPostProcess({"max_candidates": limit})(probability, [(1, 1)])[0]
        assert len(quads) == min(10, limit)
