"""A bRPC server that answers what a test tells it to, right or wrong."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator

from rpc_peers import read_frame

from ocr_serving import endpoint
from ocr_serving.wire import frame, messages, meta
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.tensor import Tensor


class Peer:
    """A server that answers each connection's n-th request with what `answer(n, frame)` gives; None hangs up."""

    def __init__(self, answer: Callable[[int, frame.Frame], bytes | None]) -> None:
        self.requests: list[frame.Frame] = []
        self.connections = 0
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = endpoint.of_socket(self._listener)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            for n in itertools.count():
                request = read_frame(sock)
                if request is None:
                    return
                self.requests.append(request)
                answer = self._answer(n, request)
                if answer is None:
                    return
                sock.sendall(answer)

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def peer(answer: Callable[[int, frame.Frame], bytes | None]) -> Iterator[Peer]:
    server = Peer(answer)
    try:
        yield server
    finally:
        server.close()


def joined(buffers: list[Buffer]) -> bytes:
    return b"".join(buffers)


def answer_with(*tensors: Tensor) -> Callable[[int, frame.Frame], bytes]:
    payload = messages.encode_response("e", [tensors], [])
    return lambda _, request: joined(frame.encode(meta.for_success(request.meta.correlation_id), payload))


def error_with(code: int, text: str) -> Callable[[int, frame.Frame], bytes]:
    def answer(_, request):
        answered = meta.for_success(request.meta.correlation_id)
        answered.response.error_code, answered.response.error_text = code, text
        return joined(frame.encode(answered))

    return answer
