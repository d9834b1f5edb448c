"""Image files -> arrays: every format OpenCV reads, its size known before it is decoded."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_serving import image
from ocr_serving.errors import BadInput, LimitExceeded
from ocr_serving.image_files import image_header

COLOUR = ["png", "jpg", "bmp", "gif", "tiff", "webp", "ppm", "pam", "jp2", "avif", "ras", "hdr"]
GREY = ["pgm", "pbm"]


def encoded(extension: str, width: int, height: int) -> bytes:
    picture = np.full((height, width) if extension in GREY else (height, width, 3), 200, np.uint8)
    picture[: height // 2] = 30
    ok, data = cv2.imencode("." + extension, picture.astype(np.float32) if extension == "hdr" else picture)
    assert ok
    return bytes(data)


@pytest.mark.parametrize("extension", COLOUR + GREY)
@settings(deadline=None, max_examples=25)
@given(width=st.integers(33, 300), height=st.integers(33, 300))
def test_the_header_gives_the_size_that_decoding_gives(extension, width, height):
    data = encoded(extension, width, height)
    assert image_header.size(data) == (width, height)
    assert image.decode(data, max_pixels=width * height).shape == (height, width, 3)


@pytest.mark.parametrize("extension", COLOUR + GREY)
def test_too_many_pixels_are_refused_from_the_header_alone(extension):
    header = encoded(extension, 400, 300)[:-15]  # the pixels are not even there
    with pytest.raises(LimitExceeded, match=r"400 x 300 .* at most 119999 "):
        image.decode(header, max_pixels=119_999)


def big_tiff(width: int, height: int) -> bytes:
    entries = [(256, 4, width), (257, 4, height)]
    return struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(entries)) + b"".join(
        struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in entries
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (
            "a JPEG header after a thumbnail's worth of segments",
            b"\xff\xd8\xff\xe1\x00\x08Exif\0\0\xff\xff\xc0\x00\x11\x08",
        ),
        ("an extended WebP", b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + (59999).to_bytes(3, "little") * 2),
        ("a lossy WebP", b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383)),
        ("an OS/2 bitmap", b"BM" + bytes(12) + struct.pack("<IHH", 12, 60000, 60000)),
        ("a bitmap from top to bottom", b"BM" + bytes(12) + struct.pack("<Iii", 40, 60000, -60000)),
        (
            "a big-endian TIFF",
            b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIHHHHII", 256, 3, 1, 60000, 0, 257, 4, 1, 60000),
        ),
        ("a BigTIFF", big_tiff(60000, 60000)),
        ("a PPM with comments", b"P6\n# made by hand # twice\r60000 #\n60000\n255\n"),
        ("a PAM with two widths", b"P7\nWIDTH 3\nWIDTH 60000\nHEIGHT 60000\nENDHDR\n"),
    ],
)
def test_hand_made_headers(name, data):
    if data.startswith(b"\xff\xd8"):
        data += struct.pack(">HH", 60000, 60000)
    width, height = image_header.size(data)
    assert min(width, height) >= 16383, name
    with pytest.raises(LimitExceeded):
        image.decode(data, max_pixels=100_000_000)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"<html></html>", b"PK\3\4" + bytes(50), b"<svg/>", b"\0" * 64, b"%PDF-1.7"]
)
def test_what_is_no_image_is_refused_with_the_accepted_kinds(data):
    with pytest.raises(BadInput, match=r"not an image file.*PNG, JPEG"):
        image.decode(data, max_pixels=10**8)


def test_channels_come_in_opencvs_order():
    _, png = cv2.imencode(".png", np.full((4, 4, 3), (255, 0, 0), np.uint8))
    assert image.decode(bytes(png), max_pixels=16)[0, 0].tolist() == [255, 0, 0]
