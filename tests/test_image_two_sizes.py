"""Files that say one size where one might look first, and make the decoder take memory for another."""

import struct

import cv2
import image_files
import numpy as np
import pytest

from ocr_serving import image
from ocr_serving.errors import BadInput, LimitExceeded
from ocr_serving.image_files import image_header

SIDE = 120
"""In pixels, of what the decoder makes; what the files say besides is smaller."""
SMALL, LARGE = struct.pack(">II", 10, 10), struct.pack(">II", SIDE, SIDE)


def avif(old: bytes, new: bytes) -> bytes:
    """A file with a box among its properties exchanged, as long as the boxes around it must then be."""
    plain = image_files.encoded(".avif", np.zeros((20, 23, 3), np.uint8))
    assert plain.count(old) == 1
    data, grown = bytearray(plain.replace(old, new)), len(new) - len(old)
    for outer in (b"ipco", b"iprp", b"meta"):
        start = data.index(outer) - 4
        data[start : start + 4] = struct.pack(">I", struct.unpack_from(">I", data, start)[0] + grown)
    pixels = plain.index(b"mdat") + 4
    return bytes(data).replace(struct.pack(">I", pixels), struct.pack(">I", pixels + grown), 1)


def tiff(kind: int) -> bytes:
    """A white BigTIFF with its sizes in this type of field, and others, that do not count, as LONG."""
    layout = {1: "B", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}[kind]
    row = bytes([257 - SIDE // 8, 0])
    first = [(tag, kind, struct.pack("<" + layout, SIDE)) for tag in (256, 257)]
    values = {256: 10, 257: 10, 258: 1, 259: 32773, 262: 1, 273: 400, 278: SIDE, 279: SIDE * len(row)}
    fields = sorted(first + [(tag, 4, struct.pack("<I", value)) for tag, value in values.items()], key=lambda f: f[0])
    directory = b"".join(struct.pack("<HHQ8s", tag, form, 1, value) for tag, form, value in fields)
    head = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(fields)) + directory + bytes(8)
    return head.ljust(400, b"\0") + row * SIDE


def radiance(above: bytes, size: bytes) -> bytes:
    """With something above its format."""
    row = struct.pack(">BBH", 2, 2, SIDE) + 4 * bytes([128 + SIDE, 128])
    return b"#?RADIANCE\n" + above + b"FORMAT=32-bit_rle_rgbe\n\n" + size + b"\n" + row * SIDE


BOX = struct.pack(">I4sIII", 20, b"ispe", 0, 23, 20)
PNG = image_files.large_png(SIDE, 1)
FILES = {
    "AVIF, flags": avif(BOX, BOX[:8] + b"\0\0\0\1" + LARGE),
    "AVIF, a length of 64 bits": avif(BOX, struct.pack(">I4sQI", 1, b"ispe", 28, 0) + LARGE),
    **{f"TIFF, type {kind}": tiff(kind) for kind in (1, 6, 8, 9, 16, 17)},
    "Radiance, above its format": radiance(b"-Y 10 +X 10\n", b"-Y  %d +X+%d" % (SIDE, SIDE)),
    "PBM, a comment that is none": b"P4 %d#%d \n1 \n" % (SIDE, SIDE) + bytes(SIDE * SIDE // 8),
    "PAM, in comments": b"P7\n#WIDTH 10\n#HEIGHT 10\n#ENDHDR\n#"
    + b"." * 5000
    + b"\nWIDTH %d\nHEIGHT %d\nDEPTH 1\nMAXVAL 255\nENDHDR\n" % (SIDE, SIDE)
    + bytes(SIDE * SIDE),
}


@pytest.mark.parametrize("name", FILES)
def test_the_size_counts_that_takes_memory(name):
    decoded = cv2.imdecode(np.frombuffer(FILES[name], np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.shape[:2] == (SIDE, SIDE), "nobody but us would refuse it"
    with pytest.raises((LimitExceeded, BadInput)):
        image.decode(FILES[name], SIDE * SIDE - 1)


@pytest.mark.parametrize(
    "data",
    [
        PNG[:8] + image_files.png_chunk(b"tEXt", SMALL) + PNG[8:],
        PNG[:8] + image_files.png_chunk(b"IHDR", SMALL + PNG[24:29]) + PNG[8:],
    ],
    ids=["a text before it", "two"],
)
def test_a_png_begins_with_its_only_header(data):
    with pytest.raises(BadInput, match="its header, IHDR, must come first, and once"):
        image.decode(data, SIDE * SIDE - 1)


def test_a_value_that_a_tiff_keeps_elsewhere_is_no_size():
    """Of 8 bytes in a classic TIFF, whose fields hold 4: what stands there is a place in the file."""
    fields = [(257, 16, 10), (256, 4, 10)]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in fields[::-1])
    data = struct.pack("<2sHIH", b"II", 42, 8, len(fields)) + directory + bytes(100)
    assert image_header.size(data) is None
