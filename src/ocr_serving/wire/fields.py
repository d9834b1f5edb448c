"""Protobuf's own layout: a message cut into its fields and fields put together, without copying what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from ocr_serving.errors import BadInput

Buffer: TypeAlias = bytes | memoryview
"""Bytes to be sent or just received; a memoryview is one-dimensional and of format "B", so len() counts bytes."""

MAX_FIELDS = 10_000
"""Most fields of one message; no model has that many inputs and outputs."""
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: as in the .proto.
        whole: its bytes, tag included.
        content: what a length-delimited field holds (string, bytes, message, packed array), None for a scalar.
    """

    number: int
    whole: memoryview
    content: memoryview | None


def split(message: memoryview) -> Iterator[Field]:
    """The fields of a message in the order they came.

    Raises:
        BadInput: while iterating; the bytes are not a protobuf message.
    """
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = _read_varint(message, at)
        content_at = at
        wire_type = tag & 7
        if wire_type == _DELIMITED:
            size, content_at = _read_varint(message, at)
            at = content_at + size
        elif wire_type == _VARINT:
            _, at = _read_varint(message, at)
        elif wire_type in (_FIXED32, _FIXED64):
            at += 4 if wire_type == _FIXED32 else 8
        else:
            raise BadInput(f"The message has a field of wire type {wire_type}, which does not exist in it.")
        if at > end:
            raise BadInput("The message ends in the middle of a field.")
        yield Field(tag >> 3, message[start:at], message[content_at:at] if wire_type == _DELIMITED else None)


def cut(message: memoryview, number: int) -> tuple[list[memoryview], bytes]:
    """The contents of all length-delimited fields of that number, and the rest of the message.

    Raises:
        BadInput: the bytes are not a protobuf message, or one of more than 10,000 fields.
    """
    contents: list[memoryview] = []
    rest: list[memoryview] = []
    for seen, field in enumerate(split(message)):
        if seen == MAX_FIELDS:
            raise BadInput(f"The message has more than {MAX_FIELDS} fields.")
        if field.number == number and field.content is not None:
            contents.append(field.content)
        else:
            rest.append(field.whole)
    return contents, b"".join(rest)


def delimited(number: int, content: Sequence[Buffer]) -> list[Buffer]:
    """A length-delimited field that holds the given buffers one after the other."""
    return [_varint(number << 3 | _DELIMITED) + _varint(size(content)), *content]


def size(buffers: Sequence[Buffer]) -> int:
    """Bytes in all the buffers."""
    return sum(map(len, buffers))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that starts at `at`, and where it ends."""
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise BadInput("The message holds a number that does not end.")
