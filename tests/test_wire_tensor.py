"""Tensors survive the wire, whatever their type, shape and sender's habits; nonsense is refused in words."""

import contextlib
import struct

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_serving.errors import BadInput
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire import messages
from ocr_serving.wire.tensor import PackedTensor, Tensor

DTYPES = ["int64", "float32", "int32", "float64", "int16", "float16", "uint8", "int8", "bool"]
FIELDS = {0: "int64_data", 1: "float_data", 2: "int_data", 3: "float64_data", 9: "bool_data"}

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
)
names = st.text(max_size=20)


def packed(message: pb.Tensor) -> PackedTensor:
    return PackedTensor.parse(memoryview(message.SerializeToString()))


def travel(tensor: Tensor) -> PackedTensor:
    return PackedTensor.parse(memoryview(b"".join(tensor.encode())))


@given(arrays, names, names, st.lists(st.integers(0, 1000), max_size=5))
def test_round_trip(array, name, alias, lod):
    received = travel(Tensor(name, alias, array, lod))
    assert (received.name, received.alias, list(received.lod)) == (name, alias, lod)
    got = received.unpack()
    np.testing.assert_array_equal(got, array, strict=True)
    assert got.flags.aligned
    assert got.flags.c_contiguous


@given(arrays)
def test_official_protobuf_reads_what_we_write(array):
    message = pb.Tensor.FromString(b"".join(Tensor("n", "a", array).encode()))
    assert tuple(message.shape) == array.shape
    if message.elem_type in FIELDS:
        np.testing.assert_array_equal(np.array(getattr(message, FIELDS[message.elem_type]), array.dtype), array.ravel())
    else:
        assert message.tensor_content == array.tobytes()


@given(arrays)
def test_we_read_what_official_protobuf_writes_and_what_lies_in_tensor_content(array):
    elem_type = pb.Tensor.FromString(b"".join(Tensor("n", "a", array).encode())).elem_type
    raw = pb.Tensor(elem_type=elem_type, shape=array.shape, tensor_content=array.tobytes())
    np.testing.assert_array_equal(packed(raw).unpack(), array, strict=True)
    if elem_type in FIELDS:
        typed = pb.Tensor(elem_type=elem_type, shape=array.shape, **{FIELDS[elem_type]: array.ravel().tolist()})
        np.testing.assert_array_equal(packed(typed).unpack(), array, strict=True)


@pytest.mark.parametrize("count", [1, 3, 200])
def test_floats_sent_one_by_one(count):
    """An unpacked repeated field: legal protobuf, written by old senders."""
    values = np.arange(count, dtype=np.float32)
    elements = b"".join(struct.pack("<Bf", 2 << 3 | 5, value) for value in values)
    rest = pb.Tensor(elem_type=1, shape=[count]).SerializeToString()
    np.testing.assert_array_equal(PackedTensor.parse(memoryview(elements + rest)).unpack(), values, strict=True)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_offsets_sent_one_by_one_beside_an_array(dtype):
    array = np.array([1, 2, 3], dtype)
    offsets = bytes(byte for i in range(100) for byte in (12 << 3, i))
    received = PackedTensor.parse(memoryview(b"".join(Tensor("x", "x", array).encode()) + offsets))
    assert list(received.lod) == [*range(100)]
    np.testing.assert_array_equal(received.unpack(), array, strict=True)


def test_floats_in_several_pieces():
    pieces = pb.Tensor(float_data=[1, 2]), pb.Tensor(elem_type=1, shape=[3]), pb.Tensor(float_data=[3])
    tensor = PackedTensor.parse(memoryview(b"".join(piece.SerializeToString() for piece in pieces)))
    assert tensor.unpack().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=">f4").reshape(3, 4),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::3],
        np.arange(6, dtype=">i2"),
    ],
    ids=["big-endian", "transposed", "strided", "big-endian-bytes"],
)
def test_any_memory_layout_is_sent_right(array):
    np.testing.assert_array_equal(travel(Tensor("x", "x", array)).unpack(), array)


def test_arrays_are_sent_from_where_they_are():
    array = np.zeros((8, 8), np.float32)
    [data] = [buffer for buffer in Tensor("x", "x", array).encode() if len(buffer) == array.nbytes]
    assert np.shares_memory(np.frombuffer(data, np.uint8), array)


@given(st.lists(st.text(), max_size=4))
def test_strings_arrive_as_the_original_server_has_them(texts):
    array = np.array(texts, np.str_)  # numpy drops trailing NULs itself
    received = travel(Tensor("x", "x", array)).unpack()
    assert received.dtype == np.uint8
    assert received.tobytes().decode() == "\0".join(array.tolist())


@pytest.mark.parametrize("dtype", [object, np.uint16, np.complex64, "M8[s]"])
def test_types_without_a_place_on_the_wire_are_refused(dtype):
    with pytest.raises(BadInput, match="cannot be sent; use int64, float32"):
        Tensor("x", "x", np.zeros(2, dtype)).encode()


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(BadInput, match="UTF-8"):
        Tensor("x", "x", np.array([b"\xff"])).encode()


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            pb.Tensor(elem_type=1, shape=[2, 3], float_data=[1] * 5, alias_name="x"),
            r"x: 5 .* do not fill the shape \[2, 3\]",
        ),
        (pb.Tensor(elem_type=1, shape=[3], alias_name="x"), r"Tensor x: 0 elements"),
        (
            pb.Tensor(elem_type=5, shape=[3], tensor_content=b"12345", name="x"),
            "x: 5 bytes are no whole number",
        ),
        (pb.Tensor(elem_type=1, shape=[-1, 3], float_data=[1] * 3), "Tensor without a name: .* none of them negative"),
        (pb.Tensor(elem_type=1, shape=[1] * 40, float_data=[1]), "at most 32 dimensions"),
        (pb.Tensor(elem_type=7, shape=[2**31 - 1] * 30, tensor_content=b"1"), "do not fill the shape"),
        (pb.Tensor(elem_type=7, shape=[0] + [2**31 - 1] * 3), "too large"),
        (pb.Tensor(elem_type=6, shape=[1], tensor_content=b"12"), r"elem_type 6 is not supported"),
        (pb.Tensor(elem_type=99, shape=[1]), r"supported are 0 \(int64\), 1 \(float32\)"),
        (pb.Tensor(elem_type=0, shape=[4], int64_data=[1, 2]), "2 elements of int64"),
    ],
)
def test_shapes_and_elements_must_agree(message, sentence):
    with pytest.raises(BadInput, match=sentence):
        packed(message).unpack()


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_read_but_never_crash(data):
    for decode in (messages.decode_request, messages.decode_response):
        with contextlib.suppress(BadInput):
            message = decode(memoryview(data))
            parts = message.outputs if isinstance(message, messages.Response) else [message]
            for tensor in (tensor for part in parts for tensor in part.tensors):
                tensor.unpack()


@given(st.data())
def test_damaged_requests_are_refused_or_read_but_never_crash(data):
    request = b"".join(messages.encode_request([Tensor("x", "y", data.draw(arrays)), Tensor("s", "s", np.array("a"))]))
    position = data.draw(st.integers(0, len(request) - 1))
    damaged = request[:position] + data.draw(st.binary(max_size=3)) + request[position + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(BadInput):
        for tensor in messages.decode_request(memoryview(damaged)).tensors:
            tensor.unpack()


def test_a_request_of_millions_of_empty_tensors_is_refused_early():
    with pytest.raises(BadInput, match="more than 10000 fields"):
        messages.decode_request(memoryview(b"\x0a\x00" * 5_000_000))
