"""What an AVIF file says before its pixels are decoded: how large they are, and how the picture is turned.

AVIF is an AV1 picture in an ISO base media file (ISO/IEC 23008-12). Its size stands there twice: in the file's boxes,
and in the AV1 sequence header of each picture (the colours, the transparency). The decoder reserves memory by the
latter, so a file of 3 kB whose boxes say 10 x 10 pixels could take gigabytes. Both are read, and the largest counts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

Size = tuple[int, int]

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
"""obu_type (AV1 specification, 6.2.2)."""
_MAX_FRAMES = 4
"""In an item: a still picture has one, or one a layer (AV1 has up to four of these); each is decoded."""
_MAX_SEQUENCE_HEADER = 128
"""Bytes read of a sequence header; before the size come at most 32 operating points of 22 bits."""
_MAX_BOXES = 4096
"""On one level of a file; a picture has a dozen or two."""
_MAX_PARTS = 256
"""Most parts of items, and most OBUs in an item; a still picture has two or three of each."""


def size(data: bytes) -> Size | None:
    """The largest (width, height) in pixels that the file holds, before any turn.

    Returns:
        None for pictures put together out of others (grid, overlay), pixels kept outside the file's data box, and AV1
        that is timed like a film: all of them rare, and their size is told elsewhere.

    Raises:
        struct.error, LookupError, ValueError: the file ends, or is damaged, inside its header.
    """
    meta = _meta(data)
    kinds = dict(_item_kinds(meta[b"iinf"]))
    if not {b"grid", b"iovl", b"iden"}.isdisjoint(kinds.values()):
        return None
    sizes: list[Size | None] = list(_extents(meta[b"iprp"]))
    for item, content in _items(data, meta[b"iloc"]):
        if kinds.get(item) == b"av01":
            sizes += [None] if content is None else _sequence_sizes(content)
    known = [extent for extent in sizes if extent is not None]
    if not known or len(known) < len(sizes):
        return None
    return max(width for width, _ in known), max(height for _, height in known)


def turn(data: bytes) -> tuple[int, int | None]:
    """How the decoded picture is turned and then mirrored (ISO/IEC 23008-12, 6.5.10 and 6.5.12).

    Returns:
        quarter turns counter-clockwise, 0 to 3; and the axis that is reversed: 0 rows, 1 columns, None neither.
    """
    properties = _meta(data)[b"iprp"]
    rotation, mirror = (
        re.search(rb"\0\0\0\x09" + name + rb"(.)", properties, re.DOTALL) for name in (b"irot", b"imir")
    )
    return rotation[1][0] & 3 if rotation else 0, mirror[1][0] & 1 if mirror else None


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (type, content) of each box on the top level of an ISO base media file, or of a box; the last may be cut.

    Raises:
        ValueError: there are more of them than in any picture.
    """
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        content = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = position + length if length else len(data)  # 0 means up to the end
        if stop < content:
            return
        yield kind, data[content:stop]
        position = stop
    raise ValueError("too many boxes")


def _meta(data: bytes) -> dict[bytes, bytes]:
    """The boxes of the file's meta box."""
    for kind, content in boxes(data):
        if kind == b"meta":
            return dict(boxes(content[4:]))
    raise ValueError("there is no meta box")


def _extents(properties: bytes) -> Iterator[Size]:
    """The sizes among the properties of all items (ISO/IEC 23008-12, 6.5.3); decoders pass over the box's flags."""
    for kind, container in boxes(properties):
        if kind == b"ipco":
            yield from (struct.unpack_from(">II", box, 4) for name, box in boxes(container) if name == b"ispe")


def _item_kinds(information: bytes) -> Iterator[tuple[int, bytes]]:
    """The (ID, type) of each item (8.11.6 of ISO/IEC 14496-12); of an ID that comes twice, the pixels win."""
    entries = list(boxes(information[8 if information[0] else 6 :]))
    kinds = [struct.unpack_from(">H2x4s" if entry[0] == 2 else ">I2x4s", entry, 4) for _, entry in entries]
    return iter(sorted(kinds, key=lambda kind: kind[1] == b"av01"))


def _items(data: bytes, location: bytes) -> Iterator[tuple[int, bytes | None]]:
    """The (ID, bytes) of each item (8.11.3 of ISO/IEC 14496-12); None for the bytes of one that lies elsewhere."""
    version, sizes = location[0], struct.unpack_from(">H", location, 4)[0]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    position, left = 6, len(data)

    def integer(length: int) -> int:
        nonlocal position
        position += length
        if position > len(location):
            raise ValueError("the item locations end early")
        return int.from_bytes(location[position - length : position], "big")

    for _ in range(integer(4 if version == 2 else 2)):
        item = integer(4 if version == 2 else 2)
        method = integer(2) & 15 if version else 0
        integer(2)
        base = integer(base_size)
        parts: list[bytes] = []
        for _ in range(integer(2)):
            integer(index_size if version else 0)
            start = base + integer(offset_size)
            parts.append(data[start : start + (integer(length_size) or len(data))])
            left -= len(parts[-1])
            if left < 0 or len(parts) > _MAX_PARTS:
                raise ValueError("the items overlap, or are cut into too many parts")
        yield item, b"".join(parts) if method == 0 else None


def _sequence_sizes(item: bytes) -> list[Size | None]:
    """The size in each sequence header among the OBUs of an AV1 item (AV1 specification, 5.3); None for a film."""
    sizes: list[Size | None] = []
    position = frames = 0
    for _ in range(_MAX_PARTS):
        if position >= len(item):
            return sizes
        header = item[position]
        position += 2 if header & 4 else 1
        length = len(item) - position
        if header & 2:
            length, position = _leb128(item, position)
        kind = header >> 3 & 15
        frames += kind in (_FRAME_HEADER, _FRAME)
        if frames > _MAX_FRAMES:
            return [None]
        if kind == _SEQUENCE_HEADER:
            sizes.append(_sequence_size(item[position : position + min(length, _MAX_SEQUENCE_HEADER)]))
        position += length
    return [None]


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A variable-length integer (AV1 specification, 4.10.5) and the position after it."""
    value = 0
    for i in range(8):
        byte = data[position + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, position + i + 1
    raise ValueError("the length of an OBU is too long")


def _sequence_size(header: bytes) -> Size | None:
    """max_frame_width and max_frame_height (AV1 specification, 5.5.1); None where timing information comes first."""
    bits, left = int.from_bytes(header, "big"), 8 * len(header)

    def read(count: int) -> int:
        nonlocal left
        left -= count
        if left < 0:
            raise ValueError("the sequence header ends early")
        return bits >> left & (1 << count) - 1

    read(4)
    if read(1):  # reduced_still_picture_header
        read(5)
    else:
        if read(1):
            return None
        delay_present = read(1)
        for _ in range(1 + read(5)):
            read(12)
            if read(5) > 7:
                read(1)
            if delay_present and read(1):
                read(4)
    width_bits, height_bits = 1 + read(4), 1 + read(4)
    return 1 + read(width_bits), 1 + read(height_bits)
