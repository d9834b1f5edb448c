"""What hostile bytes are thrown at: every decoder of what comes from outside.

test_fuzz.py throws a little of it in each test run, fuzz/run.py for as long as it is told to.
"""

import base64
import json
from collections.abc import Callable, Iterable

import image_files
import numpy as np
from rpc_peers import CAPTURES

from ocr_serving import image
from ocr_serving.errors import BadInput
from ocr_serving.image_files import image_header
from ocr_serving.web import request_form
from ocr_serving.wire import frame, json_form, messages, meta, oip_json, oip_messages, oip_pb2
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire.tensor import PackedTensor, Tensor

REFUSALS = (BadInput, ConnectionError)
"""What a decoder may raise; the latter where a frame is cut short, as when a client goes away."""
MAX_PIXELS = 10**6


def decode_image(data: bytes) -> None:
    decoded = image.decode(data, MAX_PIXELS)
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3
    width, height = image_header.size(data) or (0, 0)
    assert 0 < decoded.shape[0] * decoded.shape[1] <= width * height <= MAX_PIXELS
    assert decoded.flags.c_contiguous


def decode_web_form(data: bytes) -> None:
    for item in request_form.parse(data, 64).feed:
        decode_image(item.x)


def decode_frames(data: bytes) -> None:
    """All that one client sends."""
    rest = memoryview(data)

    def receive(buffer: memoryview) -> int:
        nonlocal rest
        size = min(len(buffer), len(rest))
        buffer[:size], rest = rest[:size], rest[size:]
        return size

    while (received := frame.read(receive)) is not None:
        received.message()


def decode_request(data: bytes) -> None:
    unpack(messages.decode_request(memoryview(data)).tensors)


def decode_response(data: bytes) -> None:
    for output in messages.decode_response(memoryview(data)).outputs:
        unpack(output.tensors)


def decode_json_request(data: bytes) -> None:
    unpack(json_form.decode_request(data).tensors)


def unpack(packed: Iterable[PackedTensor]) -> None:
    for tensor in packed:
        assert tensor.unpack().dtype != object


def decode_oip_http(data: bytes) -> None:
    """The first two bytes say how long the JSON is; 0 is unsaid."""
    size, body = int.from_bytes(data[:2], "big"), memoryview(data)[2:]
    for tensor in oip_json.decode_request(body, size or None).tensors:
        assert tensor.array.dtype != object


def decode_oip_grpc(data: bytes) -> None:
    for tensor in oip_messages.decode_request(data)[2].tensors:
        assert tensor.array.dtype != object


def web_forms() -> list[bytes]:
    small = image_files.encoded(".png", np.zeros((8, 8, 3), np.uint8))
    text = base64.b64encode(small).decode()
    return [json.dumps({"feed": [{"x": text}] * n, "fetch": ["res"]}).encode() for n in (1, 3)]


def frames() -> list[bytes]:
    captured = [(CAPTURES / "brpc" / name).read_bytes() for name in ("ok.req.bin", "ok.resp.bin")]
    return [*captured, b"".join(frame.encode(meta.for_success(7), [b"x"]))]


def tensors() -> list[Tensor]:
    arrays = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.uint8), np.array(["text", "日"])
    return [Tensor("x", "y", array) for array in arrays]


def requests() -> list[bytes]:
    return [b"".join(messages.encode_request(tensors(), ["out"], 5))]


def responses() -> list[bytes]:
    tensor = pb.Tensor(elem_type=1, shape=[2], float_data=[1, 2])
    return [pb.Response(outputs=[pb.ModelOutput(tensor=[tensor, tensor])], profile_time=[1, 2]).SerializeToString()]


def json_requests() -> list[bytes]:
    return [json_form.encode_request(tensors(), ["out"], 5)]


def oip_http_bodies() -> list[bytes]:
    plain = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]}
    binary = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [binary]}).encode()
    return [b"\0\0" + json.dumps({"inputs": [plain]}).encode(), len(head).to_bytes(2, "big") + head + bytes(8)]


def oip_grpc_messages() -> list[bytes]:
    request = oip_pb2.ModelInferRequest(model_name="m", id="1")
    request.inputs.add(name="x", datatype="FP32", shape=[2, 1])
    raw = oip_pb2.ModelInferRequest.FromString(request.SerializeToString())
    raw.raw_input_contents.append(bytes(8))
    request.inputs[0].contents.fp32_contents.extend([1, 2])
    return [request.SerializeToString(), raw.SerializeToString()]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterable[bytes]]]] = {
    "image": (decode_image, lambda: image_files.files().values()),
    "web-form": (decode_web_form, web_forms),
    "brpc-frames": (decode_frames, frames),
    "request": (decode_request, requests),
    "response": (decode_response, responses),
    "json-request": (decode_json_request, json_requests),
    "oip-http": (decode_oip_http, oip_http_bodies),
    "oip-grpc": (decode_oip_grpc, oip_grpc_messages),
}
"""Name -> a decoder of any bytes, and genuine inputs of it. What it raises besides REFUSALS is a find."""
