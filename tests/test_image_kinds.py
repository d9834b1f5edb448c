"""Images as people have them: of whatever kind the file is, the same text is read."""

import io

import cv2
import image_files
import numpy as np
import pytest
from PIL import Image, ImageOps

from ocr_serving import image
from ocr_serving.draw import WEIGHT
from ocr_serving.errors import BadInput, LimitExceeded

LIMIT = 10**6


@pytest.mark.parametrize("name", image_files.files())
def test_every_kind_of_file_reads_as_its_plain_twin(name, pipeline):
    decoded = image.decode(image_files.files()[name], LIMIT)
    assert decoded.dtype == np.uint8
    assert decoded.shape == image_files.picture().shape
    assert decoded.flags.c_contiguous
    assert pipeline.run(decoded).texts == image_files.TEXTS


ORIENTED = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 95},
}


@pytest.mark.parametrize("kind", ORIENTED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_picture_is_applied(kind, orientation):
    data = image_files.oriented(kind, orientation, image_files.rgb(), **ORIENTED[kind])
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))  # Pillow undoes AVIF's turning into the tag
    decoded = image.decode(data, LIMIT)
    assert decoded.shape[1::-1] == expected.size
    assert np.abs(decoded[:, :, ::-1].astype(int) - np.array(expected)).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_transparent_pictures_are_turned_too(kind, orientation):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = image_files.oriented(kind, orientation, image_files.cut_out(), **options)
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))[..., 3]
    decoded = image.decode(data, LIMIT)
    assert decoded.shape[:2] == upright.shape
    np.testing.assert_allclose(decoded[..., 0].astype(int), 255 - upright, atol=1, err_msg="black ink on white")


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(value):
    data = image_files.oriented("JPEG", value, image_files.rgb())
    assert image.decode(data, LIMIT).shape == image_files.picture().shape


@pytest.mark.parametrize("cut", range(6, 40, 4))
def test_damaged_exif_data_turns_nothing(cut):
    _, jpeg = cv2.imencode(".jpg", np.zeros((20, 50, 3), np.uint8))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"[:cut]
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    decoded = image.decode(bytes(jpeg[:2]) + segment + bytes(jpeg[2:]), LIMIT)
    assert decoded.shape in ((20, 50, 3), (50, 20, 3))
    assert decoded.shape[0] == 20 or cut >= 26, "turned though the tag is cut off"


def test_exif_data_that_points_beyond_all_addresses_turns_nothing():
    """As only BigTIFF data can, whose numbers have 64 bits."""
    _, jpeg = cv2.imencode(".jpg", np.zeros((20, 50, 3), np.uint8))
    exif = b"Exif\0\0II+\0\x08\0\0\0" + b"\xff" * 8
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    decoded = image.decode(bytes(jpeg[:2]) + segment + bytes(jpeg[2:]), LIMIT)
    assert decoded.shape == (20, 50, 3)


def test_a_bitmap_that_says_ftyp_where_avif_files_do_is_a_bitmap():
    """Nobody reads these bytes, the upper half of its size and two reserved ones; found by fuzzing."""
    data = image_files.files()["bmp"]
    found = image.decode(data[:4] + b"ftyp" + data[8:], LIMIT)
    np.testing.assert_array_equal(found, image.decode(data, LIMIT))


def test_half_transparent_ink_is_mixed_with_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 255, 128, 0
    assert image.decode(image_files.encoded(".png", rgba), LIMIT)[0].tolist() == [[0] * 3, [127] * 3, [255] * 3]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_light_letters_on_a_transparent_ground_are_read(kind, pipeline):
    """As in logos for dark pages, which would vanish on white."""
    ink = 255 - cv2.cvtColor(image_files.picture(), cv2.COLOR_BGR2GRAY)
    rgba = np.dstack([np.full((*ink.shape, 3), 255, np.uint8), ink])
    data = image_files.saved(Image.fromarray(rgba), kind, lossless=True)
    assert pipeline.run(image.decode(data, LIMIT)).texts == image_files.TEXTS


@pytest.mark.parametrize("level", [0, 70])
def test_a_picture_all_of_one_transparency_is_its_colours(level):
    rgba = np.full((4, 4, 4), level, np.uint8)
    rgba[..., :3] = 33
    assert (image.decode(image_files.encoded(".png", rgba), LIMIT) == 33).all()


def test_a_large_transparent_picture_is_composited_whole():
    rgba = np.zeros((1000, 20, 4), np.uint8)
    rgba[::7, :, 3] = 255
    decoded = image.decode(image_files.encoded(".png", rgba), LIMIT)
    np.testing.assert_array_equal(decoded[..., 1], 255 - rgba[..., 3])


@pytest.mark.parametrize(
    "data",
    [
        image_files.saved(image_files.grey_cut_out(), "TIFF"),
        image_files.saved(image_files.grey_cut_out(), "JPEG2000"),
        image_files.saved(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"),
        cv2.imencode(".tiff", np.full((9, 9, 4), np.nan, np.float32))[1].tobytes(),
    ],
    ids=["tiff grey and alpha", "jp2 grey and alpha", "tiff of floats", "tiff of floats that are none, and alpha"],
)
def test_variants_that_would_be_misread_are_refused(data):
    with pytest.raises(BadInput, match=r"accepted are PNG|variant that cannot be read"):
        image.decode(data, LIMIT)


SIZES = [(1, 1), (1, 5000), (5000, 1), (3, 2), (20000, 10), (10, 20000)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["1", "L", "RGBA"])
def test_extreme_sizes_are_answered(size, mode, pipeline):
    decoded = image.decode(image_files.saved(Image.new(mode, size, 1), "PNG"), LIMIT)
    assert decoded.shape == (size[1], size[0], 3)
    page = pipeline.run(decoded)
    assert page.texts == ()
    assert page.quads.shape == (0, 4, 2)


def test_pure_noise_is_answered(pipeline):
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3), np.uint8)
    page = pipeline.run(noise)
    assert len(page.texts) == len(page.quads)


def test_a_page_of_thousands_of_boxes_is_refused_in_words(pipeline):
    page = np.full((960, 960, 3), 255, np.uint8)
    for y in range(9, 960, 12):
        for x in range(1, 950, 12):
            cv2.putText(page, "e", (x, y), (0, 0, 0), cv2.FontFace("uni"), 9, WEIGHT)
    with pytest.raises(LimitExceeded, match=r"more than 3000 pieces of text.*det_max_boxes"):
        pipeline.run(page)
