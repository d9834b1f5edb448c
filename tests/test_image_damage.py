"""Files that are cut, damaged, or made to cost much: refused in words, for next to nothing."""

import json
import struct
import subprocess
import sys
import time
import zlib

import image_files
import numpy as np
import pytest
from PIL import Image

from ocr_serving import image
from ocr_serving.errors import BadInput, LimitExceeded
from ocr_serving.image_files import image_header
from ocr_serving.settings import Settings

LIMIT = 10**6


@pytest.mark.parametrize("name", image_files.files())
def test_a_file_cut_short_is_refused_unless_nothing_of_the_picture_is_missing(name):
    data = image_files.files()[name]
    whole = image.decode(data, LIMIT)
    refused = 0
    for length in (*(len(data) * i // 16 for i in range(16)), len(data) - 1):
        try:
            np.testing.assert_array_equal(image.decode(data[:length], LIMIT), whole)
        except BadInput:
            refused += 1
    assert refused >= 15 or name == "tiff of two pages"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (image_files.files()["png rgb"][:-13], "PNG file is cut short"),
        (image_files.files()["png rgb"].replace(b"IDAT", b"IDAT\x01"), "PNG file is damaged|cut short"),
        (image_files.files()["jpeg"][:-2], "cut short"),
        (image_files.files()["gif"][:-300], "cut short"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG file is damaged"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image file"),
        (b"v/1\x01\x02\0\0\0" + bytes(99), "not an image file"),
        (b"II*\0" + b"\xff" * 40, "not an image file"),
    ],
    ids=["png without end", "png shifted", "jpeg without end", "gif", "empty png", "heic", "exr", "tiff"],
)
def test_damage_is_said(data, sentence):
    with pytest.raises(BadInput, match=sentence):
        image.decode(data, LIMIT)


def test_a_flipped_bit_in_a_png_is_noticed():
    data = bytearray(image_files.files()["png rgb"])
    data[len(data) // 2] ^= 4
    with pytest.raises(BadInput, match="does not fit the checksums"):
        image.decode(bytes(data), LIMIT)


def test_chunks_that_change_nothing_may_be_damaged():
    plain = image_files.files()["png rgb"]
    chunk = bytearray(image_files.png_chunk(b"tEXt", b"Comment\0hello"))
    chunk[-1] ^= 1
    data = plain[:33] + bytes(chunk) + plain[33:]
    np.testing.assert_array_equal(image.decode(data, LIMIT), image.decode(plain, LIMIT))


def test_an_avif_file_that_lies_about_its_size_is_found_out():
    """Its boxes say 10 x 10; the AV1 stream inside says, and would take memory for, 1000 x 900."""
    honest = image_files.encoded(".avif", np.zeros((900, 1000, 3), np.uint8))
    lie = honest.replace(struct.pack(">II", 1000, 900), struct.pack(">II", 10, 10))
    assert lie != honest
    with pytest.raises(LimitExceeded, match="1000 x 900"):
        image.decode(lie, 899_999)


def tiff_header(width, height, tile):
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (277, 1), (322, tile), (323, tile), (324, 200)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(1000)


def test_a_tile_counts_as_large_as_it_is():
    with pytest.raises(LimitExceeded, match="8192 x 8192"):
        image.decode(tiff_header(10, 10, tile=8192), Settings().max_pixels)


def test_jpeg_2000_in_tiny_tiles_is_refused():
    """The decoder keeps 10 kB for each tile."""
    stream = bytearray(image_files.saved(Image.new("RGB", (250, 250)), "JPEG2000", no_jp2=True))
    at = stream.index(b"\xff\x51") + 22
    assert stream[at : at + 8] == struct.pack(">II", 250, 250)
    stream[at : at + 8] = struct.pack(">II", 1, 1)
    with pytest.raises(BadInput):
        image.decode(bytes(stream), LIMIT)


@pytest.mark.parametrize(
    ("options", "ordinary", "hostile"),
    [
        ({}, b"\x05\x04\x04", b"\x05\x00\x00"),  # code blocks of 64 x 64 and of 4 x 4 pixels
        ({"precinct_size": (256, 256)}, b"\x77\x88\xff", b"\x77\x11\xff"),  # precincts of 256 x 256 and of 2 x 2
        ({"precinct_size": (256, 256)}, b"\0\x01\0\x05\x04\x04", b"\xff\xff\0\x05\x04\x04"),  # layers
    ],
    ids=["code blocks", "precincts", "layers"],
)
def test_jpeg_2000_divided_finely_is_refused(options, ordinary, hostile):
    """The decoder keeps 500 bytes for each of a picture's parts, so 150 bytes could take gigabytes."""
    data = image_files.jpeg_2000(5000, **options)
    assert image_header.size(data) == (5000, 5000)
    assert data.count(ordinary) == 1
    with pytest.raises(BadInput):
        image.decode(data.replace(ordinary, hostile), Settings().max_pixels)


def test_a_later_part_of_jpeg_2000_counts_too():
    data = image_files.jpeg_2000(5000)
    cod = data[data.index(b"\xff\x52") :][:14].replace(b"\x05\x04\x04", b"\x05\x00\x00")
    at = data.index(b"\xff\x93")  # the end of a tile-part's header
    assert image_header.size(data[:at] + cod + data[at:]) is None


def test_layers_of_jpeg_2000_count_with_the_precincts_of_a_channel():
    """One segment has many layers and another, which has these layers too, many precincts: 7 GB for 193 bytes."""
    data = image_files.jpeg_2000(5000)
    at = data.index(b"\xff\x52")
    cod, rest = data[at : at + 14], data[at + 14 :]
    layered = cod[:6] + b"\xff\xff" + cod[8:]
    divided = struct.pack(">HHBB", 0xFF53, 10 + cod[9], 0, 1) + cod[9:] + b"\x55" * (cod[9] + 1)
    sizes = [image_header.size(data[:at] + both + rest) for both in (layered, cod + divided, layered + divided)]
    assert sizes == [(5000, 5000), (5000, 5000), None]


def test_an_avif_film_is_refused():
    """Each frame costs the decoder as much as a picture, and it decodes them all."""
    data = image_files.encoded(".avif", np.zeros((64, 64, 3), np.uint8))
    begin = data.index(b"mdat") + 4
    stream = data[begin:]
    at = 0
    while stream[at] >> 3 & 15 != 6:
        at += 2 + stream[at + 1]
    frames = stream[at:] * 4
    place = [struct.pack(">II", begin, size) for size in (len(stream), len(stream) + len(frames))]
    film = data[:begin].replace(*place) + stream + frames
    assert image_header.size(film[: -len(frames) // 4]) == (64, 64), "as many as a picture may have layers"
    assert image_header.size(film) is None


@pytest.mark.parametrize("colours", [3, 255])
def test_jpeg_2000_with_a_palette_of_many_channels_is_refused(colours):
    data = image_files.saved(Image.new("L", (250, 250)), "JPEG2000")
    begin = data.index(b"jp2h") - 4
    end = begin + struct.unpack_from(">I", data, begin)[0]
    content = struct.pack(">HB", 1, colours) + bytes([7] * colours + [0] * colours)
    palette = struct.pack(">I4s", 8 + len(content), b"pclr") + content
    whole = data[:begin] + struct.pack(">I", end - begin + len(palette)) + data[begin + 4 : end] + palette + data[end:]
    assert image_header.size(whole) == ((250, 250) if colours == 3 else None)


def progressive_jpeg(scans):
    """A progressive file with its last scan repeated: 36 bytes each, and a pass over all pixels."""
    data = image_files.saved(Image.new("RGB", (500, 500)), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + data[-2:]


def test_a_jpeg_file_of_many_scans_is_refused():
    assert image.decode(progressive_jpeg(10), LIMIT).shape == (500, 500, 3)
    with pytest.raises(BadInput, match="more than 64 scans"):
        image.decode(progressive_jpeg(100), LIMIT)


def test_what_follows_a_jpeg_picture_is_no_part_of_it():
    """Telephones append a film to a photo."""
    film = np.random.default_rng(0).bytes(1_000_000) + b"\xff\xda" * 100
    assert image.decode(progressive_jpeg(10) + film, LIMIT).shape == (500, 500, 3)


def test_a_jpeg_cut_inside_a_segment_is_said_to_be_cut():
    data = image_files.saved(Image.new("RGB", (50, 50)), "JPEG")
    thumbnails = b"\xff\xe1\0\xca" + b"\xff\xda" * 100
    whole = data[:2] + thumbnails + data[2:]
    assert image.decode(whole, LIMIT).shape == (50, 50, 3)
    with pytest.raises(BadInput, match="damaged, cut short"):
        image.decode(whole[: whole.index(b"\xff\xc4") + 2], LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe0\0\2" * 12_000_000,
        b"\xff\xd8\xff" + b"\xff\1" * 24_000_000,
        b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 6_000_000,
        b"\0\0\0\x0cftypavif" + b"\0\0\0\x08free" * 6_000_000,
    ],
    ids=["JPEG segments", "JPEG markers", "JPEG 2000 boxes", "AVIF boxes"],
)
def test_a_file_of_millions_of_parts_is_refused_at_once(data):
    begin = time.process_time()
    with pytest.raises(BadInput):
        image.decode(data, LIMIT)
    assert time.process_time() - begin < 1, "seconds, of 48 MB"


def test_a_png_file_of_many_chunks_is_refused():
    data = image_files.files()["png rgb"]
    with pytest.raises(BadInput, match="100000 chunks"):
        image.decode(data[:33] + image_files.png_chunk(b"tEXt", b"") * 100_000 + data[33:], LIMIT)


def test_a_png_file_says_no_line_for_each_chunk(capfd):
    """Of chunks that may come but once, the first counts, as for libpng."""
    data = image_files.files()["png rgb"]
    odd = data[:33] + image_files.png_chunk(b"tRNS", b"") * 1000 + data[33:]
    np.testing.assert_array_equal(image.decode(odd, LIMIT), image.decode(data, LIMIT))
    assert len(capfd.readouterr().err) < 100


def frames(kind):
    first = image_files.rgb().quantize(16) if kind == "GIF" else image_files.rgb()
    others = [Image.new(first.mode, first.size, i % 7) for i in range(100)]
    return image_files.saved(first, kind, save_all=True, append_images=others)


HUGE = {
    "png": lambda: image_files.large_png(8000, 1),
    "jpeg": lambda: b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65500, 65500) + b"\3\1\x22\0\2\x11\1\3\x11\1",
    "webp": lambda: b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + (29999).to_bytes(3, "little") * 2 + bytes(99),
    "tiff": lambda: tiff_header(30000, 30000, tile=256),
    "bmp": lambda: b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 30000, 30000, 1, 24) + bytes(99),
    "gif": lambda: b"GIF89a" + struct.pack("<HH", 30000, 30000) + bytes(99),
}
CHEAP = {
    "png with a text of 300 MB": lambda: image_files.large_png(
        64, 8, (b"zTXt", b"a\0\0" + zlib.compress(bytes(3 * 10**8), 9))
    ),
    "gif of 100 frames": lambda: frames("GIF"),
    "tiff of 100 pages": lambda: frames("TIFF"),
    "webp of 100 frames": lambda: frames("WEBP"),
}
MEASURE = """
import json, pathlib, sys, time
from ocr_serving import image
from ocr_serving.errors import OcrServingError

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024

for path in sys.argv[1:]:
    data = pathlib.Path(path).read_bytes()
    before, begin = peak(), time.monotonic()
    try:
        answer = list(image.decode(data, 60_000_000).shape)
    except OcrServingError as error:
        answer = error.code
    print(json.dumps([answer, time.monotonic() - begin, peak() - before]))
"""


def test_bombs_cost_nothing(tmp_path):
    """In a process of its own, whose memory has not been larger before."""
    paths = []
    for name, make in {"a small one first": lambda: image_files.files()["png rgb"], **HUGE, **CHEAP}.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(make())
    run = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    _, *figures = (json.loads(line) for line in run.stdout.splitlines())
    for name, (answer, seconds, megabytes) in zip([*HUGE, *CHEAP], figures, strict=True):
        if name in HUGE:
            assert answer == "LIMIT_EXCEEDED", name
        else:
            assert len(answer) == 3, name
        assert megabytes < 20, name
        assert seconds < 2, name
    assert run.stderr == ""


LACKING = """
import resource, sys
import cv2
from ocr_serving import errors, image
data = open(sys.argv[1], "rb").read()
resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
kept = []
try:
    for _ in range(8):
        kept.append(image.decode(data, 60_000_000))
except errors.Overloaded as error:
    print(error)
"""


def test_a_lack_of_memory_is_not_the_files_fault(tmp_path):
    (tmp_path / "white.png").write_bytes(image_files.large_png(7000, 8))
    run = subprocess.run([sys.executable, "-c", LACKING, tmp_path / "white.png"], capture_output=True, text=True)
    assert run.stdout == "There is no memory left for this image now; try again.\n", run.stderr


def test_the_limit_is_above_a_telephones_photograph_and_below_what_eats_a_machine():
    assert 8064 * 6048 <= Settings().max_pixels < 8000 * 8000
