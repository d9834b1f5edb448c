"""What genuine Paddle Serving 0.9 peers sent is understood, and what we send is the same, byte for byte."""

import numpy as np
import pytest
from rpc_peers import CAPTURES, frame_of

from ocr_serving.wire import compression, frame, messages, meta
from ocr_serving.wire.tensor import Tensor

GENUINE_FIRST_CALL = 0x2_0000_0002
IMAGE = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
IDS = np.array([[1, -2, 3, 1 << 40]])
SMALL = np.arange(6).reshape(2, 3)

CALLS = {
    "f32_batchTrue": ([Tensor("x", "image", IMAGE)], ["out"], 0),
    "f32_batchTrue_n2_logid": ([Tensor("x", "image", np.concatenate([IMAGE, IMAGE + 1]))], ["out"], 12345678901),
    "f32_fetch_empty": ([Tensor("x", "image", IMAGE)], [], 0),
    "f32_fetch_unknown": ([Tensor("x", "image", IMAGE)], [], 0),
    "two_confs": ([Tensor("x", "image", IMAGE)], ["out"], 0),
    "i64_batchTrue": ([Tensor("ids", "words", IDS)], ["out"], 0),
    "i32_batchTrue": ([Tensor("n", "num", np.array([[1, -2, 3, 4]], np.int32))], ["out"], 0),
    "u8_batchTrue": ([Tensor("u", "img8", SMALL.astype(np.uint8))], ["out"], 0),
    "i8_batchTrue": ([Tensor("u", "img8", SMALL.astype(np.int8))], ["out"], 0),
    "f16_batchTrue": ([Tensor("h", "half", SMALL.astype(np.float16))], ["out"], 0),
    "f64_batchTrue": ([], ["out"], 0),
    "str_batchTrue": ([Tensor("x", "image", np.array(["aGVsbG8="]))], ["out"], 0),
    "str_nofetch": ([Tensor("x", "image", np.array([b"aGVsbG8="]))], [], 0),
    "lod_batchTrue": ([Tensor("ids", "words", np.arange(1, 6).reshape(5, 1), lod=(0, 2, 5))], ["out"], 0),
    "multi_batchTrue": (
        [
            Tensor("x", "image", np.ones((1, 2), np.float32)),
            Tensor("im_shape", "im_shape", np.zeros((1, 2), np.float32)),
            Tensor("n", "num", np.array([[7]], np.int32)),
            Tensor("ids", "words", np.array([[1, 2, 3]])),
        ],
        ["o1", "o2"],
        0,
    ),
}
"""Capture -> what was called: tensors, fetch, log_id. The client dropped an unknown fetch and a float64 feed."""


@pytest.mark.parametrize("name", CALLS)
def test_our_request_is_the_genuine_clients(name):
    tensors, fetch, log_id = CALLS[name]
    request = frame.encode(meta.for_request(GENUINE_FIRST_CALL), messages.encode_request(tensors, fetch, log_id))
    assert b"".join(request) == (CAPTURES / "requests" / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", CALLS)
def test_genuine_request_is_read(name):
    tensors, fetch, _ = CALLS[name]
    received = frame_of((CAPTURES / "requests" / f"{name}.bin").read_bytes())
    request = messages.decode_request(received.message())
    assert request.fetch == tuple(fetch)
    assert received.meta.correlation_id == GENUINE_FIRST_CALL
    assert [(t.name, t.alias, tuple(t.lod)) for t in request.tensors] == [(t.name, t.alias, t.lod) for t in tensors]
    for got, sent in zip(request.tensors, tensors, strict=True):
        expected = sent.array if sent.array.dtype.kind not in "SU" else np.frombuffer(b"aGVsbG8=", np.uint8)
        np.testing.assert_array_equal(got.unpack(), expected, strict=True)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("f32_batchTrue", {"out": SMALL.astype(np.float32)}),
        ("two_confs", {"out": SMALL}),
        ("i32_batchTrue", {"out": SMALL.astype(np.int32)}),
        ("u8_batchTrue", {"out": SMALL.astype(np.uint8)}),
        ("i8_batchTrue", {"out": SMALL.astype(np.int8)}),
        ("f16_batchTrue", {"out": SMALL.astype(np.float16)}),
        ("multi_batchTrue", {"o1": SMALL.astype(np.float32), "o2": SMALL}),
        ("mode_bare", {"out": SMALL.astype(np.float32)}),
        ("mode_errno", {"out": SMALL.astype(np.float32)}),
        ("mode_empty", {}),
        ("mode_errno_noout", {}),
    ],
)
def test_answer_that_the_genuine_client_took_is_read(name, outputs):
    answer = frame_of((CAPTURES / "responses" / f"{name}.bin").read_bytes())
    assert answer.meta.response.error_code == 0
    response = messages.decode_response(answer.message())
    arrays = {tensor.alias: tensor.unpack() for output in response.outputs for tensor in output.tensors}
    assert arrays.keys() == outputs.keys()
    for alias, array in outputs.items():
        np.testing.assert_array_equal(arrays[alias], array, strict=True)


def test_genuine_brpc_answer_is_gunzipped_and_read():
    answer = frame_of((CAPTURES / "brpc" / "ok.resp.bin").read_bytes())
    assert answer.meta.compress_type == compression.GZIP
    response = messages.decode_response(compression.decompress(answer.message(), compression.GZIP, 1000))
    assert [output.engine_name for output in response.outputs] == ["GeneralInferOp_0"]
    assert all(tensor.unpack().dtype == np.float32 for tensor in response.outputs[0].tensors)


@pytest.mark.parametrize("packed", ["gzip_req", "zlib_req", "snappy_req", "no_compress_field", "attach"])
def test_packed_genuine_requests_hold_the_plain_one(packed):
    plain = frame_of((CAPTURES / "brpc" / "ok.req.bin").read_bytes())
    request = frame_of((CAPTURES / "brpc" / f"{packed}.req.bin").read_bytes())
    assert compression.decompress(request.message(), request.meta.compress_type, 35) == plain.message()
