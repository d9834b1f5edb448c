"""One client for each protocol of the model server, all called alike: an array in, the model's first output back.

Ours for bRPC, plain HTTP and gRPC, Triton's own for the Open Inference Protocol (OIP). JSON is written and read by
msgspec for both, so that the protocol is measured: Triton's own client takes seconds for that. A connection is kept for
all calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any

import grpc
import msgspec
import numpy as np
import requests
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray

from ocr_serving.model_dir import ModelDir
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.wire import messages, meta
from ocr_serving.wire.tensor import Tensor

Array = NDArray[Any]
Call = Callable[[Array], Array]

PATH = f"/{meta.SHORT_SERVICE}/{meta.INFERENCE}"
_TIMEOUT = 120


@contextmanager
def _brpc(address: str, model: ModelDir) -> Iterator[Call]:
    feed, fetch = model.feeds[0].alias, model.graph_fetches[0].alias
    with closing(RemotePredictor(address, model.feeds, model.graph_fetches)) as client:
        yield lambda array: client.predict({feed: array}, [fetch])[fetch]


@contextmanager
def _http_protobuf(address: str, model: ModelDir) -> Iterator[Call]:
    with _session(address, PATH, "application/proto", "identity") as post:
        yield lambda array: _first_output(post(_request(array, model)))


@contextmanager
def _http_json(address: str, model: ModelDir, encoding: str) -> Iterator[Call]:
    feed, fetch = model.feeds[0], model.graph_fetches[0]

    def call(array: Array) -> Array:
        tensor = {
            "float_data": array.ravel().tolist(),
            "elem_type": feed.elem_type,
            "shape": array.shape,
            "name": feed.name,
            "alias_name": feed.alias,
        }
        answer = post(msgspec.json.encode({"tensor": [tensor], "fetch_var_names": [fetch.alias]}))
        found = msgspec.json.decode(answer)["outputs"][0]["tensor"][0]
        return _array(found["float_data"], found["shape"])

    with _session(address, PATH, "application/json", encoding) as post:
        yield call


@contextmanager
def _grpc(address: str, model: ModelDir) -> Iterator[Call]:
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, unlimited) as channel:
        infer = channel.unary_unary(f"/{meta.SERVICE}/{meta.INFERENCE}")
        yield lambda array: _first_output(infer(_request(array, model), timeout=_TIMEOUT))


@contextmanager
def _oip_json(address: str, model: ModelDir) -> Iterator[Call]:
    feed, fetch = model.feeds[0].alias, model.graph_fetches[0].alias

    def call(array: Array) -> Array:
        tensor = {"name": feed, "shape": array.shape, "datatype": "FP32", "data": array.ravel().tolist()}
        answer = post(msgspec.json.encode({"inputs": [tensor], "outputs": [{"name": fetch}]}))
        found = msgspec.json.decode(answer)["outputs"][0]
        return _array(found["data"], found["shape"])

    with _session(address, f"/v2/models/{model.name}/infer", "application/json", "identity") as post:
        yield call


@contextmanager
def _oip(address: str, model: ModelDir, triton: Any, data: Mapping[str, bool]) -> Iterator[Call]:
    """Triton's HTTP or gRPC client; `data` says how HTTP sends arrays."""
    feed, fetch = model.feeds[0].alias, model.graph_fetches[0].alias

    def call(array: Array) -> Array:
        tensor = triton.InferInput(feed, array.shape, "FP32")
        tensor.set_data_from_numpy(array, **data)
        answer = client.infer(model.name, [tensor], outputs=[triton.InferRequestedOutput(fetch, **data)])
        found: Array = answer.as_numpy(fetch)
        return found

    with closing(triton.InferenceServerClient(address)) as client:
        yield call


CLIENTS: Mapping[str, Callable[[str, ModelDir], AbstractContextManager[Call]]] = {
    "bRPC": _brpc,
    "HTTP protobuf": _http_protobuf,
    "HTTP JSON": partial(_http_json, encoding="identity"),
    "HTTP JSON, answer gzipped": partial(_http_json, encoding="gzip"),
    "gRPC": _grpc,
    "OIP HTTP JSON": _oip_json,
    "OIP HTTP binary": partial(_oip, triton=tritonclient.http, data={"binary_data": True}),
    "OIP gRPC": partial(_oip, triton=tritonclient.grpc, data={}),
}
"""Protocol -> what connects to a server ("host:port") of a model and yields a function that calls it."""


@contextmanager
def _session(address: str, path: str, content_type: str, encoding: str) -> Iterator[Callable[[bytes], bytes]]:
    with requests.Session() as session:
        session.headers.update({"Content-Type": content_type, "Accept-Encoding": encoding})

        def post(body: bytes) -> bytes:
            answer = session.post(f"http://{address}{path}", data=body, timeout=_TIMEOUT)
            answer.raise_for_status()
            return answer.content

        yield post


def _array(data: Sequence[float], shape: Sequence[int]) -> Array:
    return np.array(data, np.float32).reshape(shape)


def _request(array: Array, model: ModelDir) -> bytes:
    feed = model.feeds[0]
    tensor = Tensor(feed.name, feed.alias, array)
    return b"".join(messages.encode_request([tensor], [model.graph_fetches[0].alias]))


def _first_output(response: bytes) -> Array:
    return messages.decode_response(memoryview(response)).outputs[0].tensors[0].unpack()
