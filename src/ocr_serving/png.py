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

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"tRNS", b"eXIf")
"""Transparency and orientation; critical chunks, whose names begin with a capital, are kept besides."""
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
    found = dict(chunks)
    header, level = found.get(b"IHDR", b""), found.get(b"tRNS", b"")
    if len(header) == 13 and header[9] == _GREY and header[8] <= 8 and len(level) == 2:
        chunks = [part for kind, content in chunks for part in _as_palette(kind, content, header[8])]
    return SIGNATURE + b"".join(part for kind, content in chunks for part in _framed(kind, content))


def _kept_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The (type, content) of each chunk that matters, up to the end of the picture."""
    view = memoryview(data)
    position = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        header = data[position : position + 8]
        length, kind = struct.unpack(">I4s", header) if len(header) == 8 else (0, b"")
        content = view[position + 8 : position + 8 + length]
        position += 12 + length
        if position > len(data):
            raise BadInput("The PNG file is cut short.")
        if kind[:1] < b"a" or kind in _KEPT:
            if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(data[position - 4 : position], "big"):
                raise BadInput("The PNG file is damaged: its data does not fit the checksums in it.")
            yield kind, content
        if kind == b"IEND":
            return
    raise BadInput(f"The PNG file is made of more than {_MAX_CHUNKS} chunks.")


def _as_palette(kind: bytes, content: memoryview, depth: int) -> Iterator[tuple[bytes, memoryview]]:
    """A chunk of a grey picture with a transparent level, in the words of a palette picture."""
    if kind == b"IHDR":
        yield kind, memoryview(bytes((*content[:9], _PALETTE, *content[10:])))
        last = (1 << depth) - 1
        yield b"PLTE", memoryview(bytes(255 * level // last for level in range(last + 1) for _ in "RGB"))
    elif kind == b"tRNS":
        opaque = min(int.from_bytes(content, "big"), (1 << depth) - 1)
        yield kind, memoryview(b"\xff" * opaque + b"\0")
    else:
        yield kind, content


def _framed(kind: bytes, content: memoryview) -> tuple[bytes, bytes, memoryview, bytes]:
    return len(content).to_bytes(4, "big"), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big")
