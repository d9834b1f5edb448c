"""The size of an image as its file says, for every format that OpenCV decodes, without decoding a pixel.

Pillow could tell sizes too, but it knows neither PAM nor Radiance files, its own pixel limit is global to the
process, and it warns on stderr about damaged files; a header is a few bytes at a known place. Where a hostile file
could give several sizes, the largest counts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator

from ocr_serving.image_files import avif_header, jpeg2000_header
from ocr_serving.image_files.avif_header import Size

_MAX_TEXT_HEADER = 4096
"""Bytes searched in a format whose header is text."""
_START_OF_SCAN, _END_OF_IMAGE, _STAND_ALONE = 0xDA, 0xD9, (0x01, 0xD8)
"""JPEG's markers; those that stand alone have no length after them."""
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""A marker but for those inside of a scan's data: 0 is a stuffed byte, D0 to D7 restart the decoder."""
_MAX_SEGMENTS = 4096
"""Of a JPEG file; 64 MB of colour profiles and thumbnails would be 1000."""
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
"""Field type -> layout, of all that libtiff takes for a size."""
_RADIANCE_LINE = 127
"""Bytes that OpenCV reads of a line."""


def size(data: bytes) -> Size | None:
    """The (width, height) in pixels that the file's header gives, before any EXIF rotation.

    Args:
        data: a whole image file.

    Returns:
        None where the bytes are no image of a known format, or end before the size.
    """
    try:
        return _reader(data)(data)
    except (struct.error, LookupError, ValueError):  # the file ends, or is damaged, inside its header
        return None


def is_avif(data: bytes) -> bool:
    """Whether a whole image file is AVIF; bitmaps, too, can have "ftyp" where it does."""
    return _reader(data) is avif_header.size


def _reader(data: bytes) -> Callable[[bytes], Size | None]:
    """What reads the size of such a file."""
    return next((read for signature, read in _FORMATS if signature.match(data)), lambda _: None)


def _fixed(layout: str, offset: int) -> Callable[[bytes], Size]:
    """A reader of two integers, width then height, at a fixed place."""

    def read(data: bytes) -> Size:
        width, height = struct.unpack_from(layout, data, offset)
        return width, height

    return read


def _bmp(data: bytes) -> Size:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # a negative height means rows from top to bottom


def jpeg_scans(data: bytes) -> int:
    """How many scans a JPEG file has up to the end of its picture; what follows that, as in motion photos, is no JPEG.

    Raises:
        struct.error, ValueError: the file ends inside a segment, or has more of them than any picture.
    """
    return sum(marker == _START_OF_SCAN for marker, _ in _jpeg_segments(data))


def _jpeg(data: bytes) -> Size | None:
    """The frame header's (ITU-T T.81, B.2.2)."""
    for marker, content in _jpeg_segments(data):
        if marker == _START_OF_SCAN:  # a scan without a frame
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, content + 3)
            return width, height
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment, and where what follows it begins (ITU-T T.81, B.1.1)."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None or found[1][0] == _END_OF_IMAGE:
            return
        marker, position = found[1][0], found.end()
        yield marker, position
        if marker not in _STAND_ALONE:
            position += struct.unpack_from(">H", data, position)[0]
    raise ValueError("too many segments")


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(data: bytes) -> Size | None:
    """ImageWidth (256) and ImageLength (257), or TileWidth (322) and TileLength (323): a tile is decoded whole."""
    tags = tiff_tags(data, (256, 257, 277, 322, 323))
    if 256 not in tags or 257 not in tags or tags.get(277) == 2:  # 2 samples: OpenCV drops their transparency
        return None
    return max(tags[256], tags.get(322, 0)), max(tags[257], tags.get(323, 0))


def tiff_tags(data: bytes, wanted: Collection[int]) -> dict[int, int]:
    """Integers of the first directory of TIFF 6.0, BigTIFF or EXIF data, the largest one of a tag that comes twice.

    Raises:
        struct.error: the data ends before the directory, or inside, or a value has more bytes than its entry holds.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    if directory > len(data):  # struct raises OverflowError for places beyond 2^63
        raise struct.error("the directory lies outside of the data")
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
    start, step, at = (directory + 8, 20, 12) if big else (directory + 2, 12, 8)
    values: dict[int, int] = {}
    for entry in range(start, start + step * min(count, 65535), step):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in wanted and kind in _TIFF_INTEGERS:
            layout = order + _TIFF_INTEGERS[kind]
            if struct.calcsize(layout) > step - at:
                raise struct.error("the value lies elsewhere")
            (value,) = struct.unpack_from(layout, data, entry + at)
            values[tag] = max(values.get(tag, 0), value)
    return values


def _pnm(data: bytes) -> Size | None:
    """PBM, PGM and PPM: the first two numbers after the magic, comments aside.

    Right after a number no comment begins: OpenCV passes over one byte there, whatever it is.
    """
    header = re.sub(rb"(?<=\s)#[^\r\n]*", b" ", data[2:_MAX_TEXT_HEADER])
    found = re.match(rb"\s+(\d+)\s+(\d+)\s", header)
    return (int(found[1]), int(found[2])) if found else None


def _pam(data: bytes) -> Size | None:
    header, end, _ = re.sub(rb"\n#[^\n]*", b"", data[:_MAX_TEXT_HEADER]).partition(b"\nENDHDR")
    if not end:
        return None
    width, height = (
        max(map(int, re.findall(name + rb"\s+(\d+)", header)), default=0) for name in (b"WIDTH", b"HEIGHT")
    )
    return (width, height) if width and height else None


def _radiance(data: bytes) -> Size | None:
    """What the line after the first empty one says; spaces, and a plus before a number, are as for C's sscanf."""
    begin = data.index(b"\n\n", 0, _MAX_TEXT_HEADER) + 2
    found = re.match(rb"-Y\s*\+?(\d+)\s*\+X\s*\+?(\d+)", data[begin : begin + _RADIANCE_LINE])
    return (int(found[2]), int(found[1])) if found else None


_FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Size | None]], ...] = tuple(
    (re.compile(signature, re.DOTALL), read)
    for signature, read in (
        (rb"\x89PNG\r\n\x1a\n", _fixed(">II", 16)),
        (rb"\xff\xd8\xff", _jpeg),
        (rb"GIF8[79]a", _fixed("<HH", 6)),
        (rb"BM", _bmp),
        (rb"RIFF....WEBP", _webp),
        (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", _tiff),
        (rb"P[1-6]\s", _pnm),
        (rb"P7\s", _pam),
        (rb"#\?R(?:ADIANCE|GBE)", _radiance),
        (rb"\x59\xa6\x6a\x95", _fixed(">II", 4)),
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", jpeg2000_header.size),
        (rb"....ftyp(?:avif|mif1|miaf)", avif_header.size),  # not avis: the size of a film is told elsewhere
    )
)
