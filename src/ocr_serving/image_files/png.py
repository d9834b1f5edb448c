"""PNG files cut down to the chunks that the picture is made of (W3C PNG specification, 5.3 and 5.6).

Colour profiles, texts and further frames change nothing that is read here, but libpng inflates them, and writes about
their many known faults to stderr. The checksums are verified on the way, so that a file cut short or damaged is refused
with a sentence that says so.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from ocr_serving.errors import BadInput

Buffer = bytes | memoryview

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"tRNS", b"eXIf")
"""Transparency and orientation; critical chunks, whose names begin with a capital, are kept besides."""
_PICTURE = b"IDAT"
"""The one kind of which a file may have several."""
_MAX_CHUNKS = 100_000
_GREY, _PALETTE = 0, 3


def essential(data: bytes) -> bytes:
    """The file without the chunks that change nothing.

    Grey with one transparent level becomes a palette of greys with one transparent entry (which holds 8 bits at most),
    because OpenCV passes over the transparency of the former.

    Raises:
        BadInput: the file is cut short or damaged.
    """
    chunks = list(_kept_chunks(data))
    content = {kind: chunk[8:-4] for kind, chunk in chunks}
    header, level = content.get(b"IHDR", b""), content.get(b"tRNS", b"")
    if len(header) == 13 and header[9] == _GREY and header[8] <= 8 and len(level) == 2:
        palette = dict(_palette(header, level))
        chunks = [(kind, palette.get(kind, chunk)) for kind, chunk in chunks]
    return b"".join((SIGNATURE, *(chunk for _, chunk in chunks)))


def _kept_chunks(data: bytes) -> Iterator[tuple[bytes, Buffer]]:
    """The (type, whole chunk) of each chunk that matters, up to the end of the picture.

    Of what may come but once, the first: libpng passes over the others, too, but with a line on stderr for each.
    """
    view = memoryview(data)
    seen: set[bytes] = set()
    position = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        start, header = position, data[position : position + 8]
        length, kind = struct.unpack(">I4s", header) if len(header) == 8 else (0, b"")
        position += 12 + length
        if position > len(data):
            raise BadInput("The PNG file is cut short.")
        if (kind == b"IHDR") != (start == len(SIGNATURE)):  # where image_header reads the size
            raise BadInput("The PNG file is damaged: its header, IHDR, must come first, and once.")
        if kind[:1] < b"a" or kind in _KEPT:
            if zlib.crc32(view[start + 4 : position - 4]) != int.from_bytes(data[position - 4 : position], "big"):
                raise BadInput("The PNG file is damaged: its data does not fit the checksums in it.")
            if kind == _PICTURE or kind not in seen:
                yield kind, view[start:position]
            seen.add(kind)
        if kind == b"IEND":
            return
    raise BadInput(f"The PNG file is made of more than {_MAX_CHUNKS} chunks.")


def _palette(header: Buffer, transparent: Buffer) -> Iterator[tuple[bytes, bytes]]:
    """What takes the place of the IHDR and tRNS chunks of a grey picture, in the words of a palette picture."""
    last = (1 << header[8]) - 1
    greys = bytes(255 * level // last for level in range(last + 1) for _ in "RGB")
    opaque = min(int.from_bytes(transparent, "big"), last)
    yield b"IHDR", _chunk(b"IHDR", bytes((*header[:9], _PALETTE, *header[10:]))) + _chunk(b"PLTE", greys)
    yield b"tRNS", _chunk(b"tRNS", b"\xff" * opaque + b"\0")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
