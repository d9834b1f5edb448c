"""Compressed payloads, unpacked within a limit; RpcMeta.compress_type says how they are packed."""

from __future__ import annotations

import zlib

import cramjam

from ocr_serving.errors import BadInput, TooLarge
from ocr_serving.wire.fields import Buffer

NONE, SNAPPY, GZIP, ZLIB = range(4)
_NAMES = {NONE: "none", SNAPPY: "snappy", GZIP: "gzip", ZLIB: "zlib"}
_ZLIB_HEADER, _GZIP_HEADER = zlib.MAX_WBITS, 16 + zlib.MAX_WBITS


def name(compress_type: int) -> str:
    """What brpc calls a compress_type; "unknown" for one that it, too, cannot unpack (4, lz4, among them)."""
    return _NAMES.get(compress_type, "unknown")


def decompress(payload: Buffer, compress_type: int, limit: int) -> memoryview:
    """The payload unpacked; not copied when it is not packed.

    Args:
        payload: as received, without the attachment.
        compress_type: NONE, SNAPPY (a raw block, no framing), GZIP or ZLIB.
        limit: most bytes to unpack; a payload that holds more is given up as soon as that shows.

    Raises:
        BadInput: an unknown compress_type or damaged data.
        TooLarge: more than `limit` bytes inside.
    """
    if compress_type == NONE:
        return memoryview(payload)
    if compress_type == SNAPPY:
        return _unsnap(payload, limit)
    if compress_type in (GZIP, ZLIB):
        return _inflate(payload, _GZIP_HEADER if compress_type == GZIP else _ZLIB_HEADER, limit)
    raise BadInput(f"Compression {compress_type} is not supported; use 0 (none), 1 (snappy), 2 (gzip) or 3 (zlib).")


def _inflate(payload: Buffer, header: int, limit: int) -> memoryview:
    stream = zlib.decompressobj(header)
    try:
        data = stream.decompress(payload, limit + 1)
    except zlib.error as error:
        raise BadInput("The compressed payload is damaged.") from error
    if len(data) > limit:
        raise _too_large(limit)
    if not stream.eof or stream.unused_data:
        raise BadInput("The compressed payload is cut off, or something follows it.")
    return memoryview(data)


def _unsnap(payload: Buffer, limit: int) -> memoryview:
    """The block's first bytes say its unpacked size, so that the limit is checked before anything is unpacked."""
    block = bytes(payload)
    try:
        if cramjam.snappy.decompress_raw_len(block) > limit:
            raise _too_large(limit)
        return memoryview(bytes(cramjam.snappy.decompress_raw(block)))
    except cramjam.DecompressionError as error:
        raise BadInput("The compressed payload is damaged.") from error


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The compressed payload holds more than the {limit} bytes allowed.")
