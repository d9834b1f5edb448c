"""What a JPEG 2000 file says before its pixels are decoded: how large they are, and how finely they are divided.

ISO/IEC 15444-1, Annexes A and I. The decoder reserves memory for every tile, precinct, code block, quality layer and
palette colour that is announced, so a file of 150 bytes could take gigabytes. Encoders come nowhere near the limits
here; what is over them is told as no size, as are files whose markers are not read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from ocr_serving.image_files.avif_header import Size, boxes

Picture = tuple[int, int, int]
"""Width, height, channels."""

_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MAX_TILES = 4096
"""The decoder keeps 10 kB a tile; a picture of 10000 x 10000 pixels in tiles of 256 has 1600."""
_MAX_SEGMENTS = 65536
"""Of a codestream, its headers' and its tile-parts'."""
_MAX_CHANNELS = 4
"""Of a palette, and in all: OpenCV takes no more."""
_PARTS = 65536
_LEAST_AREA = 128
"""Of the precincts and code blocks that a picture may have beyond _PARTS, in pixels: each costs about 500 bytes. Code
blocks mostly have 64 x 64 pixels."""
_MAX_PACKETS = 2**24
"""Layers times precincts of all resolutions and channels; the decoder keeps two bytes for each."""


def size(data: bytes) -> Size | None:
    """The (width, height) in pixels; None for what is divided too finely.

    Raises:
        struct.error, LookupError, ValueError: the file ends, or is damaged, inside its headers.
    """
    stream = data
    if data[:1] != b"\xff":
        outer = list(boxes(data))
        stream = next((content for kind, content in outer if kind == b"jp2c"), b"")
        if any(channels > _MAX_CHANNELS for channels in _palettes(outer)):
            return None
    if stream[:4] != b"\xff\x4f\xff\x51":
        return None
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">IIIIII", stream, 8)
    (channels,) = struct.unpack_from(">H", stream, 40)
    width, height = right - left, bottom - top
    tiles = -(-right // max(1, tile_width)) * -(-bottom // max(1, tile_height))
    if tiles > _MAX_TILES or channels > _MAX_CHANNELS:
        return None
    picture = width, height, channels
    codings = [_coding(marker, stream, at, picture) for marker, at in _segments(stream) if marker in (_COD, _COC)]
    layers, parts, packets = (max(numbers) for numbers in zip(*codings, strict=True))  # a COC has the layers of the COD
    coarse = parts <= _PARTS + width * height * channels // _LEAST_AREA and layers * packets <= _MAX_PACKETS
    return (width, height) if coarse else None


def _palettes(outer: list[tuple[bytes, bytes]]) -> Iterator[int]:
    """The channels of each palette (I.5.3.4)."""
    for kind, content in outer:
        if kind == b"jp2h":
            yield from (palette[2] for name, palette in boxes(content) if name == b"pclr")


def _segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment in the main header and in those of the tile-parts, and where its length stands.

    Raises:
        ValueError: something else stands there, or there are too many.
    """
    position, part = 2, 0
    for _ in range(_MAX_SEGMENTS):
        (marker,) = struct.unpack_from(">H", stream, position)
        if marker == _EOC:
            return
        if marker == _SOD:  # the packets of the tile-part; of the last one, the length may be 0
            (length,) = struct.unpack_from(">I", stream, part + 6)
            if not length or part + length >= len(stream):
                return
            if part + length <= position:
                raise ValueError("a tile-part ends before its data")
            position = part + length
            continue
        if not (0xFF50 <= marker < 0xFF80 or marker == _SOT):
            raise ValueError("not a marker of a header")
        part = position if marker == _SOT else part
        yield marker, position + 2
        position += 2 + struct.unpack_from(">H", stream, position + 2)[0]
    raise ValueError("too many segments")


def _coding(marker: int, stream: bytes, at: int, picture: Picture) -> tuple[int, int, int]:
    """The layers of a segment about coding (A.6.1, A.6.2), the parts it divides all into, and the packets a layer.

    Args:
        marker: of the segment, COD or COC.
        stream: the codestream.
        at: where the segment's length stands.
        picture: width, height and channels.
    """
    if marker == _COD:
        coded, layers, style = at + 7, struct.unpack_from(">H", stream, at + 4)[0], stream[at + 2]
    else:
        coded, layers, style = at + 4, 1, stream[at + 3]
    width, height, channels = picture
    levels, *block = stream[coded : coded + 3]
    precincts = stream[coded + 5 : coded + 6 + levels] if style & 1 else b"\xff" * (levels + 1)
    most = parts = 0
    for resolution, sizes in enumerate(precincts):
        sides = -(-width >> (levels - resolution)), -(-height >> (levels - resolution))
        precinct = sizes & 15, sizes >> 4
        # A precinct's share of each sub-band is half as broad and high (B.7).
        blocks = (min(side + 2, limit - (resolution > 0)) for side, limit in zip(block, precinct, strict=True))
        count = _count(sides, precinct)
        most = max(most, count)
        parts += channels * (count + _count(sides, blocks))
    return layers, parts, (levels + 1) * channels * most


def _count(sides: Iterable[int], powers: Iterable[int]) -> int:
    """Rectangles, whose sides are these powers of two, in one with these sides."""
    across, down = (-(-side >> max(0, power)) for side, power in zip(sides, powers, strict=True))
    return across * down
