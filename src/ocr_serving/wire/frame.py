"""baidu_std frames: "PRPC", two sizes, an RpcMeta and a payload.

Reading and writing take the socket's recv_into and sendmsg as functions, so that timeouts and deadlines stay with the
caller and this module knows no sockets.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from google.protobuf.message import DecodeError

from ocr_serving.errors import BadInput, TooLarge
from ocr_serving.wire.fields import Buffer, size
from ocr_serving.wire.rpc_meta_pb2 import RpcMeta

MAGIC = b"PRPC"
MAX_BODY = 512 * 1024 * 1024
"""Default of Paddle Serving's --max_body_size, in bytes."""

_HEADER = struct.Struct("!4sII")
_FIRST_BUFFER = 1024 * 1024
_GROWTH = 8
"""A body's buffer starts small and grows by this factor as bytes arrive: a peer cannot reserve memory by a claim."""
_MAX_BUFFERS = 512
"""Buffers handed to one sendmsg; Linux takes at most 1024."""


@dataclass(frozen=True)
class Frame:
    """One request or answer.

    Attributes:
        meta: what it is and how the payload is packed.
        payload: the bytes after the meta, the attachment at their end included.
    """

    meta: RpcMeta
    payload: memoryview

    def message(self) -> memoryview:
        """The payload without its attachment.

        Raises:
            BadInput: the attachment would be larger than the payload; the sentence is brpc's.
        """
        attached = self.meta.attachment_size
        if not 0 <= attached <= len(self.payload):
            raise BadInput(f"attachment_size={attached} is larger than request_size={len(self.payload)}")
        return self.payload[: len(self.payload) - attached]


def read(recv_into: Callable[[memoryview], int], max_body: int = MAX_BODY) -> Frame | None:
    """The next frame, or None where the peer closed the connection between two frames.

    Args:
        recv_into: fills the start of a buffer and says how many bytes came; 0 at the end of the stream.
        max_body: largest meta and payload together, in bytes.

    Raises:
        BadInput: this is not a frame, or too large a one; nothing that follows on the connection can be understood.
        ConnectionError: the stream ended in the middle of a frame. Whatever recv_into raises passes through.
    """
    header = memoryview(bytearray(_HEADER.size))
    got = recv_into(header)
    if got == 0:
        return None
    _fill(recv_into, header[got:])
    magic, body_size, meta_size = _HEADER.unpack(header)
    if magic != MAGIC:
        raise BadInput("The bytes do not start with PRPC: this is no baidu_std frame.")
    if body_size > max_body:
        raise TooLarge(f"A frame of {body_size} bytes is larger than the {max_body} bytes allowed.")
    if meta_size > body_size:
        raise BadInput("The frame's meta is larger than its body.")
    body = _read_body(recv_into, body_size)
    try:
        meta = RpcMeta.FromString(bytes(body[:meta_size]))
    except DecodeError as error:
        raise BadInput("The frame's meta is damaged.") from error
    return Frame(meta, body[meta_size:])


def encode(meta: RpcMeta, payload: Sequence[Buffer] = ()) -> list[Buffer]:
    """A frame as buffers to be sent one after the other; the payload's are passed on, not copied.

    Raises:
        TooLarge: more than any peer takes by default.
    """
    encoded = meta.SerializeToString()
    body_size = len(encoded) + size(payload)
    if body_size > MAX_BODY:
        raise TooLarge(f"A message of {body_size} bytes is larger than the {MAX_BODY} bytes allowed.")
    return [_HEADER.pack(MAGIC, body_size, len(encoded)), encoded, *payload]


def write(sendmsg: Callable[[Sequence[Buffer]], int], buffers: Sequence[Buffer]) -> None:
    """Send all buffers; `sendmsg` sends some of their bytes and says how many. What it raises passes through."""
    pending = deque(memoryview(buffer) for buffer in buffers if len(buffer))
    while pending:
        sent = sendmsg(list(islice(pending, _MAX_BUFFERS)))
        while pending and sent >= len(pending[0]):
            sent -= len(pending.popleft())
        if sent:
            pending[0] = pending[0][sent:]


def _read_body(recv_into: Callable[[memoryview], int], length: int) -> memoryview:
    body = np.empty(min(length, _FIRST_BUFFER), np.uint8)
    _fill(recv_into, body.data)
    while body.size < length:
        grown = np.empty(min(length, body.size * _GROWTH), np.uint8)
        grown[: body.size] = body
        _fill(recv_into, grown.data[body.size :])
        body = grown
    return body.data


def _fill(recv_into: Callable[[memoryview], int], buffer: memoryview) -> None:
    while len(buffer):
        got = recv_into(buffer)
        if got == 0:
            raise ConnectionError("The peer closed the connection in the middle of a frame.")
        buffer = buffer[got:]
