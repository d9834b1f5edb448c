"""brpc's JSON: genuine requests, what is written and how, arrays there and back, bodies that are none."""

import json
import math
import threading
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rpc_peers import CAPTURES

from ocr_serving.errors import BadInput, TooLarge
from ocr_serving.wire import elements, json_array, json_form
from ocr_serving.wire.tensor import Tensor

TYPES = ["i8", "f4", "i4", "f8", "i2", "f2", "u1", "i1", "?"]
arrays = st.sampled_from(TYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
)


def genuine_body(number):
    return (CAPTURES / "httpclient" / f"req_{number}.bin").read_bytes().partition(b"\r\n\r\n")[2]


def as_request(response):
    """The tensors of a Response in a Request: both write them alike."""
    [output] = json.loads(response)["outputs"]
    return msgspec.json.encode({"tensor": output["tensor"]})


def test_a_genuine_request_is_read():
    request = json_form.decode_request(genuine_body(2))
    [tensor] = request.tensors
    assert (tensor.name, tensor.alias, request.fetch) == ("x", "image", ("out",))
    expected = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    np.testing.assert_array_equal(tensor.unpack(), expected, strict=True)


def test_a_genuine_string_becomes_its_bytes():
    [tensor] = json_form.decode_request(genuine_body(4)).tensors
    assert tensor.unpack().tobytes() == b"aGVsbG8="


def test_an_answer_is_written_as_json2pb_writes_it():
    tensors = [
        Tensor("g", "out", np.array([[0.1, 1e-7, 3]], np.float32)),
        Tensor("n", "", np.array([2**53 + 1, -1])),
        Tensor("", "raw", np.array([1, 2], np.uint8), lod=(0, 2)),
        Tensor("s", "s", np.array(["text", "ä"])),
        Tensor("b", "b", np.array([True, False])),
        Tensor("none", "none", np.zeros((0, 2), np.float32)),
    ]
    assert json_form.encode_response("GeneralInferOp_0", [tensors], [1, 2]).decode() == (
        '{"outputs":[{"tensor":['
        '{"float_data":[0.10000000149011612,1.0000000116860974e-7,3.0],"elem_type":1,"shape":[1,3],'
        '"name":"g","alias_name":"out"},'
        '{"int64_data":[9007199254740993,-1],"shape":[2],"name":"n"},'
        '{"elem_type":7,"shape":[2],"lod":[0,2],"alias_name":"raw","tensor_content":"AQI="},'
        '{"data":["text","ä"],"elem_type":20,"shape":[2],"name":"s","alias_name":"s"},'
        '{"bool_data":[true,false],"elem_type":9,"shape":[2],"name":"b","alias_name":"b"},'
        '{"elem_type":1,"shape":[0,2],"name":"none","alias_name":"none"}'
        '],"engine_name":"GeneralInferOp_0"}],"profile_time":[1,2]}'
    )


@given(arrays)
def test_every_type_travels_bit_for_bit(array):
    body = as_request(json_form.encode_response("E", [[Tensor("n", "a", array)]], []))
    np.testing.assert_array_equal(json_form.decode_request(body).tensors[0].unpack(), array, strict=True)


def test_what_json_lacks_is_written_as_protobuf_writes_it():
    array = np.array([math.nan, math.inf, -math.inf, 0.5], np.float32)
    body = as_request(json_form.encode_response("E", [[Tensor("n", "a", array)]], []))
    assert b'["NaN","Infinity","-Infinity",0.5]' in body
    np.testing.assert_array_equal(json_form.decode_request(body).tensors[0].unpack(), array, strict=True)


def test_integers_may_be_strings_unknown_fields_are_passed_over_and_null_is_a_field_left_out():
    body = b"""{"tensor": [{"int64_data": ["9007199254740993", -2], "shape": ["2"], "lod": null, "new": {"x": []}}],
                "log_id": "18446744073709551615", "what": 1}"""
    request = json_form.decode_request(body)
    np.testing.assert_array_equal(request.tensors[0].unpack(), np.array([2**53 + 1, -2]), strict=True)


def test_no_body_is_an_empty_request():
    request = json_form.decode_request(b"")
    assert (request.tensors, request.fetch) == ((), ())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "Invalid json format"),
        (b"\xff\xfe{\x00}\x00", "Invalid json format"),
        (b"\xef\xbb\xbf{}", "Invalid json format"),
        (b'{"tensor": [{"float_data": [NaN]}]}', "Invalid json format"),
        (b'{"tensor": [{"name": "\xff"}]}', "Invalid json format"),
        (b'{"a":' * 10_000, "Invalid json format"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"tensor": {}}', "at `$.tensor`"),
        (b'{"tensor": [{}, {"int64_data": [1.5]}]}', "array of int64 - at `$.tensor[1].int64_data`"),
        (b'{"tensor": [{"elem_type": 1, "float_data": "1"}]}', "at `$.tensor[0].float_data`"),
        (b'{"tensor": [{"elem_type": 1, "float_data": [[1]]}]}', "Expected a flat array - at `$.tensor[0].float_data`"),
        (b'{"tensor": [%b]}' % b",".join([b"{}"] * 10_001), "length <= 10000 - at `$.tensor`"),
        (b'{"tensor": [{"shape": [2147483648]}]}', "at `$.tensor[0].shape[0]`"),
        (b'{"tensor": [{"int_data": [2147483648], "elem_type": 2, "shape": [1]}]}', "out of the range of int32"),
        (b'{"tensor": [{"tensor_content": "*"}]}', "at `$.tensor[0].tensor_content`"),
    ],
)
def test_what_is_no_request_is_refused_with_the_place(body, sentence):
    with pytest.raises(BadInput) as refused:
        json_form.decode_request(body)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        ({"float_data": [1, 2], "elem_type": 1, "shape": [3]}, "2 elements of float32"),
        ({"float_data": [1, 2], "elem_type": 0, "shape": [2]}, "0 elements of int64"),
        ({"int_data": [1], "elem_type": 4, "shape": [1]}, "0 elements of int16"),
        ({"elem_type": 6, "shape": [1]}, "elem_type 6 is not supported"),
        ({"float_data": [1], "elem_type": 1, "shape": [-1]}, "none of them negative"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_in_words(tensor, sentence):
    request = json_form.decode_request(msgspec.json.encode({"tensor": [{**tensor, "name": "t"}]}))
    with pytest.raises(BadInput, match=sentence):
        request.tensors[0].unpack()


@given(arrays)
def test_nested_and_flat_data_mean_the_same(array):
    finite = np.isfinite(array).all()
    nested = json.dumps(array.tolist()).encode() if finite else b"[%b]" % bytes(json_array.encode(array))
    np.testing.assert_array_equal(json_array.decode(nested, array.dtype), array.ravel(), strict=True)


@pytest.mark.parametrize(
    ("data", "dtype"),
    [("[1.5]", "i4"), ("[300]", "u1"), ("[-1]", "u8"), ("[true]", "i1"), ("[null]", "f4"), ("[{}]", "f4"),
     ('["x"]', "f4"), ("{}", "f4"), ('"x"', "f4"), ("[2]", "?")],
)  # fmt: skip
def test_data_of_another_type_is_refused(data, dtype):
    with pytest.raises(BadInput, match=np.dtype(dtype).name):
        json_array.decode(data.encode(), np.dtype(dtype))


@pytest.mark.parametrize("dtype", ["f4", "i8", "?"])
def test_arrays_of_many_pieces_are_read_and_written(monkeypatch, dtype):
    monkeypatch.setattr(elements, "PIECE", 3)
    array = np.arange(100).astype(dtype).reshape(10, 10)
    text = bytes(json_array.encode(array))
    assert json.loads(text) == array.ravel().tolist()
    for written in (text, json.dumps(array.tolist(), indent=1).encode()):
        np.testing.assert_array_equal(json_array.decode(written, array.dtype), array.ravel(), strict=True)
    assert json_array.decode(b"[[], [], [], [ ]]", array.dtype).size == 0


@pytest.mark.parametrize(
    "data", ["[[], [], [], 1]", "[1, 2, 3, [], 4]", "[1, 2, 3, 4, []]", '["1,2,3,4,5,6"]', "[1, 2, {}]"]
)
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_what_is_no_array_of_numbers_is_refused_in_any_piece(monkeypatch, data, piece):
    monkeypatch.setattr(elements, "PIECE", piece)
    with pytest.raises(BadInput, match="float32"):
        json_array.decode(data.encode(), np.dtype("f4"))


@pytest.mark.parametrize("form", [False, True])
def test_other_threads_do_not_wait_for_a_large_array(form):
    """A thread that wants to run every millisecond does, while 64 MB of JSON are read and written."""
    waits, done = [], threading.Event()

    def tick():
        while not done.is_set():
            begin = time.monotonic()
            time.sleep(0.001)
            waits.append(time.monotonic() - begin)

    ticking = threading.Thread(target=tick)
    ticking.start()
    text = b"[%b1]" % (b"1," * 2**23)
    if form:
        json_form.decode_request(b'{"tensor": [{"elem_type": 1, "float_data": %b}]}' % text)
    else:
        json_array.encode(json_array.decode(text, np.dtype("f4")))
    done.set()
    ticking.join()
    assert max(waits) < 0.5


def test_an_array_that_takes_too_much_as_json_is_given_up_on_the_way(monkeypatch):
    monkeypatch.setattr(json_array, "MAX_BODY", 1000)
    monkeypatch.setattr(elements, "PIECE", 10)
    assert len(bytes(json_array.encode(np.zeros(200, np.float32)))) == 801
    with pytest.raises(TooLarge, match="more than 1000 bytes as JSON"):
        json_array.encode(np.zeros(300, np.float32))
