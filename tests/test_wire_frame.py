"""Frames and packed payloads: any chunking, any damage, no memory on credit."""

import contextlib
import gzip
import struct
import tracemalloc
import zlib

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc_peers import CAPTURES, frame_of

from ocr_serving.errors import BadInput, EngineFailed, TooLarge
from ocr_serving.wire import compression, frame, meta
from ocr_serving.wire.rpc_meta_pb2 import RpcMeta

MIB = 1024 * 1024


class Stream:
    """A socket's receiving side that hands out the bytes in pieces of the given sizes, over and over."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = sizes
        self._reads = 0

    def recv_into(self, buffer: memoryview) -> int:
        size = min(len(buffer), self._sizes[self._reads % len(self._sizes)], len(self._data))
        self._reads += 1
        buffer[:size], self._data = self._data[:size], self._data[size:]
        return size


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.binary(max_size=50), max_size=5),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_survive_any_chunking(correlation_id, payload, sizes):
    one = b"".join(frame.encode(meta.for_success(correlation_id), payload))
    stream = Stream(one + one, sizes)
    for _ in range(2):
        received = frame.read(stream.recv_into)
        assert received.meta == meta.for_success(correlation_id)
        assert bytes(received.payload) == b"".join(payload)
    assert frame.read(stream.recv_into) is None


@given(st.lists(st.binary(max_size=10), max_size=1500), st.lists(st.integers(1, 500), min_size=1))
def test_write_sends_everything_however_little_a_send_takes(buffers, sizes):
    sent = []

    def sendmsg(some):
        assert 0 < len(some) <= 1024  # more is an error of the kernel's
        data = b"".join(some)[: sizes[len(sent) % len(sizes)]]
        sent.append(data)
        return len(data)

    frame.write(sendmsg, buffers)
    assert b"".join(sent) == b"".join(buffers)


def test_a_large_body_arrives_whole():
    payload = bytes(range(256)) * (20 * MIB // 256)
    received = frame_of(b"".join(frame.encode(RpcMeta(), [payload])))
    assert received.payload == payload


def test_a_claim_reserves_no_memory():
    """A header that announces 512 MiB, and then a few bytes."""
    stream = Stream(struct.pack("!4sII", b"PRPC", 512 * MIB, 4) + bytes(100), [1000])
    tracemalloc.start()
    with pytest.raises(ConnectionError):
        frame.read(stream.recv_into)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MIB


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (struct.pack("!4sII", b"PRPC", 512 * MIB + 1, 4), TooLarge),
        (struct.pack("!4sII", b"PRPC", 2**32 - 1, 4), TooLarge),
        (struct.pack("!4sII", b"PRPC", 4, 5) + bytes(4), BadInput),
        (struct.pack("!4sII", b"HULU", 4, 4) + bytes(4), BadInput),
        (struct.pack("!4sII", b"PRPC", 4, 4) + b"\xff" * 4, BadInput),
        (b"GET / HTTP/1.1\r\n\r\n", BadInput),
    ],
)
def test_what_is_no_frame_is_refused(header, error):
    with pytest.raises(error):
        frame.read(Stream(header, [1000]).recv_into)


@pytest.mark.parametrize("length", [1, 11, 12, 50, 129])
def test_a_frame_cut_short_is_a_broken_connection(length):
    data = (CAPTURES / "brpc" / "ok.req.bin").read_bytes()
    with pytest.raises(ConnectionError, match="middle of a frame"):
        frame.read(Stream(data[:length], [7]).recv_into)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_end_early(data):
    for stream in (data, struct.pack("!4sII", b"PRPC", len(data), len(data) // 2) + data):
        with contextlib.suppress(BadInput, ConnectionError):
            received = frame.read(Stream(stream, [1000]).recv_into)
            if received is not None:
                received.message()


def test_more_than_a_peer_takes_is_not_sent():
    part = bytes(128 * MIB)
    with pytest.raises(TooLarge, match="536870912"):
        frame.encode(RpcMeta(), [part] * 5)


@pytest.mark.parametrize("size", [-1, 6])
def test_an_attachment_lies_inside_the_payload(size):
    received = frame_of(b"".join(frame.encode(RpcMeta(attachment_size=size), [b"12345"])))
    with pytest.raises(BadInput, match=f"attachment_size={size} is larger than request_size=5"):
        received.message()


def test_errors_of_the_service_look_like_the_originals():
    genuine = frame_of((CAPTURES / "brpc" / "op_error.resp.bin").read_bytes()).meta
    assert meta.for_error(7, EngineFailed("Out of memory."), "127.0.0.1:19555") == genuine


PACKERS = {
    compression.NONE: bytes,
    compression.SNAPPY: lambda data: bytes(cramjam.snappy.compress_raw(data)),
    compression.GZIP: gzip.compress,
    compression.ZLIB: zlib.compress,
}


@given(st.sampled_from(list(PACKERS)), st.binary(max_size=2000), st.integers(1, 50))
def test_payloads_are_unpacked(kind, data, repeats):
    data *= repeats
    assert compression.decompress(memoryview(PACKERS[kind](data)), kind, len(data)) == data


@pytest.mark.parametrize("kind", [compression.SNAPPY, compression.GZIP, compression.ZLIB])
def test_a_bomb_is_given_up_at_the_limit(kind):
    bomb = PACKERS[kind](bytes(300 * MIB))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="more than the 1048576 bytes allowed"):
        compression.decompress(bomb, kind, MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(bomb) + 8 * MIB


@pytest.mark.parametrize("kind", [compression.SNAPPY, compression.GZIP, compression.ZLIB])
def test_a_packed_payload_cut_short_or_followed_by_more_is_refused(kind):
    packed = PACKERS[kind](bytes(range(256)) * 4)
    for damaged in (packed[:-5], packed[: len(packed) // 2], b"", packed + b"more"):
        with pytest.raises(BadInput):
            compression.decompress(damaged, kind, MIB)


@given(st.sampled_from([1, 2, 3, 4, 99, -1]), st.binary(max_size=100))
def test_random_payloads_never_crash(kind, data):
    with contextlib.suppress(BadInput):
        compression.decompress(data, kind, MIB)
