"""The Open Inference Protocol's tensors and requests, in JSON, binary and protobuf, good and bad."""

import contextlib
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ocr_serving.errors import BadInput
from ocr_serving.wire import oip, oip_json, oip_messages, oip_tensor
from ocr_serving.wire import oip_pb2 as pb
from ocr_serving.wire.oip import OipRequest
from ocr_serving.wire.tensor import Tensor

DATATYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip
CONTENTS = {
    "?": "bool_contents", "i1": "int_contents", "i2": "int_contents", "i4": "int_contents", "i8": "int64_contents",
    "u1": "uint_contents", "u2": "uint_contents", "u4": "uint_contents", "u8": "uint64_contents",
    "f4": "fp32_contents", "f8": "fp64_contents",
}  # fmt: skip


def arrays(*dtypes):
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    return st.sampled_from(dtypes).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), shapes))


def datatype(array):
    return next(name for name, dtype in DATATYPES.items() if np.dtype(dtype) == array.dtype)


def json_request(*inputs, binary=b"", **more):
    head = json.dumps({"inputs": inputs, **more}).encode()
    return memoryview(head + binary), len(head)


@pytest.mark.parametrize("name", DATATYPES)
def test_each_datatype_is_its_numpy_type(name):
    assert oip_tensor.dtype_of(name) == np.dtype(DATATYPES[name])
    assert oip_tensor.datatype_of(np.dtype(DATATYPES[name])) == name


@given(arrays(*DATATYPES.values()))
def test_binary_both_ways(array):
    answer = OipRequest("", (), (), all_binary=True)
    head, raw = oip_json.encode_response("m", "1", answer, [Tensor("x", "x", array)])
    [output] = json.loads(head)["outputs"]
    assert output["parameters"] == {"binary_data_size": array.nbytes}
    body, size = json_request(output, binary=bytes(raw))
    [tensor] = oip_json.decode_request(body, size).tensors
    np.testing.assert_array_equal(tensor.array, array, strict=True)


@given(arrays(*DATATYPES.values()))
def test_json_both_ways(array):
    [head] = oip_json.encode_response("m", "1", OipRequest("7", (), ()), [Tensor("x", "x", array)])
    answer = json.loads(head)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "1", "7")
    body, _ = json_request(*answer["outputs"])
    [tensor] = oip_json.decode_request(body, None).tensors
    np.testing.assert_array_equal(tensor.array, array, strict=True)


@given(arrays(*DATATYPES.values()))
def test_raw_contents_both_ways(array):
    encoded = oip_messages.encode_response("m", "1", OipRequest("7", (), ()), [Tensor("x", "x", array)])
    answer = pb.ModelInferResponse.FromString(encoded)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "7")
    request = pb.ModelInferRequest(
        model_name="m", inputs=answer.outputs, raw_input_contents=answer.raw_output_contents
    ).SerializeToString()
    model, version, asked = oip_messages.decode_request(request)
    assert (model, version) == ("m", "")
    np.testing.assert_array_equal(asked.tensors[0].array, array, strict=True)


@given(arrays(*CONTENTS))
def test_typed_contents(array):
    contents = {CONTENTS[DATATYPES[datatype(array)]]: array.ravel().tolist()}
    sent = pb.InferTensor(name="x", datatype=datatype(array), shape=array.shape, contents=contents)
    _, _, asked = oip_messages.decode_request(pb.ModelInferRequest(inputs=[sent]).SerializeToString())
    np.testing.assert_array_equal(asked.tensors[0].array, array, strict=True)


STRINGS = [b"first", "zweites ä".encode(), b""]
JOINED = b"first\0zweites \xc3\xa4\0"


def test_a_request_has_ten_thousand_inputs_at_most():
    each = b'{"name": "x", "datatype": "FP32", "shape": [0], "data": []}'
    with pytest.raises(BadInput, match=r"length <= 10000 - at `\$\.inputs`"):
        oip_json.decode_request(memoryview(b'{"inputs": [%b]}' % b",".join([each] * 10_001)), None)


def test_strings_that_lie_deep_are_not_copied_once_a_level():
    count, depth = 100_000, 400
    data = b"[" * depth + b",".join([b'""'] * count) + b"]" * depth
    body = b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [%d], "data": %b}]}' % (count, data)
    begin = time.process_time()
    [tensor] = oip_json.decode_request(memoryview(body), None).tensors
    assert tensor.array.size == count - 1
    assert time.process_time() - begin < 0.2


def test_strings_become_what_general_model_service_makes_of_them():
    texts = [text.decode() for text in STRINGS]
    raw = b"".join(len(text).to_bytes(4, "little") + text for text in STRINGS)
    flat, _ = json_request({"name": "x", "datatype": "BYTES", "shape": [3], "data": texts})
    nested, _ = json_request({"name": "x", "datatype": "BYTES", "shape": [1, 3], "data": [texts]})
    size = {"parameters": {"binary_data_size": len(raw)}}
    binary, head = json_request({"name": "x", "datatype": "BYTES", "shape": [3], **size}, binary=raw)
    given_ = {"name": "x", "datatype": "BYTES", "shape": [3]}
    typed = pb.ModelInferRequest(inputs=[pb.InferTensor(**given_, contents={"bytes_contents": STRINGS})])
    packed = pb.ModelInferRequest(inputs=[pb.InferTensor(**given_)], raw_input_contents=[raw])
    requests = [oip_json.decode_request(body, size) for body, size in [(flat, None), (nested, None), (binary, head)]]
    requests += [oip_messages.decode_request(message.SerializeToString())[2] for message in (typed, packed)]
    for request in requests:
        assert request.tensors[0].array.tobytes() == JOINED


@pytest.mark.parametrize("array", [np.array([["text", "ä"], ["", "x"]]), np.array([b"text", "ä".encode()])])
def test_strings_of_an_answer(array):
    texts = [text.decode() if isinstance(text, bytes) else text for text in array.ravel().tolist()]
    raw = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts)
    tensors = [Tensor("res", "res", array)]
    [head] = oip_json.encode_response("m", "1", OipRequest("", (), ()), tensors)
    expected = {"name": "res", "datatype": "BYTES", "shape": list(array.shape)}
    assert json.loads(head)["outputs"] == [{**expected, "data": texts}]
    head, binary = oip_json.encode_response("m", "1", OipRequest("", (), (), all_binary=True), tensors)
    assert json.loads(head)["outputs"] == [{**expected, "parameters": {"binary_data_size": len(raw)}}]
    answer = pb.ModelInferResponse.FromString(oip_messages.encode_response("m", "1", OipRequest("", (), ()), tensors))
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", list(array.shape))
    assert bytes(binary) == answer.raw_output_contents[0] == raw


def test_what_is_asked_of_the_answer():
    body, _ = json_request(
        {"name": "x", "datatype": "INT8", "shape": [1], "data": [1]},
        id="7",
        outputs=[{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}],
        parameters={"timeout": 1_500_000, "sequence_id": 3},
    )
    request = oip_json.decode_request(body, None)
    assert (request.id, request.fetch, request.seconds) == ("7", ("a", "b"), 1.5)
    tensors = [Tensor(name, name, np.array([1], np.int8)) for name in "ab"]
    head, raw = oip_json.encode_response("m", "1", request, tensors)
    first, second = json.loads(head)["outputs"]
    assert ("data" in first, second["data"], bytes(raw)) == (False, [1], b"\1")


@pytest.mark.parametrize(("timeout", "seconds"), [(0, None), (1, 1e-6), (10**15, 1e9), (2**63 - 1, None)])
def test_time_limits(timeout, seconds):
    """Python waits 9.2e9 s at most; clients write the largest number for none."""
    assert oip.seconds({"timeout": timeout}) == seconds


X = {"name": "x", "datatype": "FP32", "shape": [2]}


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        ({**X, "data": [1]}, "Input x: 1 elements of float32 do not fill the shape"),
        ({**X, "data": ["a", "b"]}, "Input x: Its data must be an array of float32"),
        ({**X, "datatype": "INT8", "data": [1, 128]}, "out of the range of int8"),
        ({**X, "datatype": "BF16", "data": [1, 1]}, "not supported; supported are BOOL, UINT8"),
        ({**X, "shape": [-1, 2], "data": [1, 2]}, "none of them negative"),
        ({**X, "shape": [1] * 33, "data": [1]}, "at most 32 dimensions"),
        ({**X, "datatype": "BYTES", "data": [1, 2]}, "array of strings"),
        (X, "neither data nor binary_data_size"),
        ({**X, "parameters": {"binary_data_size": 9}}, "no size of what follows"),
        ({**X, "parameters": {"binary_data_size": 8, "shared_memory_region": "r"}}, "Shared memory is not offered"),
        ({**X, "parameters": {"binary_data_size": 7}}, "7 bytes are no whole number of float32"),
        ({**X, "parameters": {"binary_data_size": 4}}, "1 elements of float32 do not fill"),
        ({"name": "x", "shape": [2], "data": []}, "missing required field `datatype`"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_words(tensor, sentence):
    body, size = json_request(tensor, binary=bytes(8))
    with pytest.raises(BadInput) as refused:
        oip_json.decode_request(body, size)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("body", "size", "sentence"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b"[" * 10_000, None, "Expected `object`"),
        (b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ' + b"[" * 10_000, None, "valid JSON"),
        (b"{}", None, "missing required field `inputs`"),
        (b'{"inputs": []}', 15, "larger than the body"),
        (b'{"inputs": []}x', 14, "1 bytes follow the JSON that belong to no input"),
        (b'{"inputs": [], "parameters": {"timeout": -1}}', None, "microseconds"),
        (b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 2}}]}', None, "Classification"),
    ],
)
def test_bodies_that_are_no_request(body, size, sentence):
    with pytest.raises(BadInput) as refused:
        oip_json.decode_request(memoryview(body), size)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"inputs": [X], "raw_input_contents": [b"", b""]}, "1 inputs and 2 raw_input_contents"),
        ({"inputs": [X], "raw_input_contents": [bytes(7)]}, "Input x: 7 bytes are no whole number"),
        ({"inputs": [{**X, "datatype": "BYTES"}], "raw_input_contents": [b"\5\0\0\0ab"]}, "end in the middle of one"),
        ({"inputs": [{**X, "datatype": "FP16"}]}, "FP16 in raw_input_contents"),
        ({"inputs": [{**X, "datatype": "INT8", "contents": {"int_contents": [1, 128]}}]}, "out of the range of int8"),
        ({"inputs": [], "parameters": {"timeout": pb.InferParameter(string_param="1")}}, "microseconds"),
    ],
)
def test_messages_that_do_not_fit_are_refused_in_words(request_, sentence):
    with pytest.raises(BadInput) as refused:
        oip_messages.decode_request(pb.ModelInferRequest(**request_).SerializeToString())
    assert sentence in str(refused.value)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else(data):
    for decode in (oip_messages.decode_request, lambda body: oip_json.decode_request(memoryview(body), None)):
        with contextlib.suppress(BadInput):
            decode(data)
