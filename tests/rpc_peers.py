"""Small peers for the RPC tests: a predictor that needs no model file, a running model server, raw client sockets."""

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ocr_serving import endpoint
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, EngineFailed
from ocr_serving.model_dir import Variable
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.server.limits import Limits
from ocr_serving.server.listener import ModelServer
from ocr_serving.server.service import ModelService, ServedModel
from ocr_serving.wire import frame, messages, meta
from ocr_serving.wire.frame import Frame
from ocr_serving.wire.tensor import Tensor

CAPTURES = Path(__file__).parent / "data" / "captures"
"""Bytes that genuine Paddle Serving 0.9 clients and a genuine brpc 1.0 server sent."""

FEEDS = (Variable("x", "image", 1, (2,)),)
FETCHES = (Variable("graph_out", "out", 1, (2,)), Variable("FAIL", "FAIL", 1, (1,)))


class Doubler(Predictor):
    """Answers twice its input as `out`; fetching FAIL breaks the engine. A feed of -1 waits until released."""

    def __init__(self) -> None:
        self.calls = 0
        self.started = threading.Semaphore(0)
        self.release = threading.Event()

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        self.calls += 1
        if "FAIL" in fetch:
            raise EngineFailed("The engine broke on this input.")
        if not {"out"} >= set(fetch):
            raise BadInput("Unknown fetch; the model has: out.")
        if "image" not in feed:
            raise BadInput("The model takes exactly these inputs: image.")
        image = feed["image"]
        if image.size and image.flat[0] == -1:
            self.started.release()
            assert self.release.wait(60)
        return {"out": image * image.dtype.type(2)}

    def close(self) -> None:
        self.release.set()


@contextlib.contextmanager
def serving(
    predictor: Doubler,
    threads: int = 4,
    limits: Limits | None = None,
    port: int = 0,
    feeds: tuple[Variable, ...] = FEEDS,
) -> Iterator[ModelServer]:
    """A model server in this process; its address is the value's."""
    service = ModelService({"doubler": ServedModel(predictor, feeds, FETCHES)})
    server = ModelServer(service, endpoint.bind("127.0.0.1", port), threads, limits)
    server.start()
    try:
        yield server
    finally:
        predictor.release.set()
        server.stop(5)


def remote(*addresses: str) -> contextlib.closing:
    """A client of the doubler, closed at the end of the block."""
    return contextlib.closing(RemotePredictor(addresses, FEEDS, FETCHES[:1]))


def connect(address: str) -> socket.socket:
    return socket.create_connection(endpoint.parse(address), 10)


def read_frame(sock: socket.socket) -> Frame | None:
    return frame.read(sock.recv_into)


def request(correlation_id: int, *values: float, timeout_ms: int | None = None) -> bytes:
    """A bRPC frame that asks a Doubler for twice the values."""
    payload = messages.encode_request([Tensor("x", "image", numbers(*values))], ["out"])
    return b"".join(frame.encode(meta.for_request(correlation_id, timeout_ms), payload))


def values(answer: Frame) -> list[float]:
    """What a Doubler answered."""
    [output] = messages.decode_response(answer.message()).outputs
    return output.tensors[0].unpack().ravel().tolist()


def frame_of(data: bytes) -> Frame:
    """The one frame in the bytes."""
    stream = io.BytesIO(data)
    parsed = frame.read(stream.readinto)
    assert parsed is not None
    assert not stream.read()
    return parsed


def wait_until(condition: Callable[[], object]) -> None:
    """Return once the condition holds; AssertionError if it does not within a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def assert_every_client_gets_its_own(ask: Callable[[range], list[list[float]]]) -> None:
    """Eight clients ask a Doubler at once, each for thirty numbers; `ask` is one of them: what each answer holds."""
    asked = [range(1000 * n, 1000 * n + 30) for n in range(8)]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(ask, asked, timeout=60))
    assert found == [[[2 * i] for i in of_one] for of_one in asked]


def numbers(*values: float) -> np.ndarray:
    return np.array([values], np.float32)
