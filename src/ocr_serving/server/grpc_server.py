"""gRPC on the model server's port: grpcio serves a private socket, and clients' connections are spliced to it.

grpcio takes over no connected socket. The private one is in Linux's abstract namespace: it leaves no file behind.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc

from ocr_serving.deadline import FOREVER_SECONDS, Deadline
from ocr_serving.errors import NotFound
from ocr_serving.server import faults
from ocr_serving.server.grpc_methods import GeneralModelMethods, Method, MethodGroup, OipMethods
from ocr_serving.server.limits import Limits
from ocr_serving.server.service import ModelService
from ocr_serving.server.splice import SplicedConnection
from ocr_serving.server.untaken import UntakenAnswers
from ocr_serving.server.workers import Workers

_SPARE_THREADS = 16
"""For calls that wait for nothing, while as many requests as there is room for wait for their turn."""
_STREAMS = 1000
"""Calls of one connection at once. Clients wait with more of them, and the workers' bound, or that on answers which
the client does not take, is met long before."""
_MOST_UNTAKEN = 2**30
"""Bytes of answers that wait for their clients."""
_MOST_BYTES = 2**31 - 1
"""The largest limit that grpcio knows."""


class _Threads(ThreadPoolExecutor):
    """Threads of which one is there from the start; where no more can be had, the work waits for those that there are.

    An exception out of submit() would end grpcio's own thread, and with it the service over gRPC, for good.
    """

    def __init__(self, most: int, thread_name_prefix: str) -> None:
        """Raises RuntimeError where not even one can be started."""
        super().__init__(most, thread_name_prefix)
        super().submit(int).result()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See Executor.submit."""
        done: Future[Any] = Future()

        def work() -> None:
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)

        with suppress(RuntimeError):  # which comes after the work was put into the queue
            super().submit(work)
        return done


class GrpcServer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves the gRPC methods of a ModelService. Thread-safe."""

    def __init__(self, service: ModelService, workers: Workers, limits: Limits, address: str) -> None:
        """Serve from now on; `address` is the server's, with which brpc's error texts begin."""
        self._untaken = UntakenAnswers(_MOST_UNTAKEN, limits.send_seconds)
        check_room = self._untaken.check_room
        self._general_model = GeneralModelMethods(service, workers, address, check_room)
        self._groups: tuple[MethodGroup, ...] = (self._general_model, OipMethods(service, workers, check_room))
        self._private = f"ocr-serving-{secrets.token_hex(16)}"
        self._server = grpc.server(
            _Threads(workers.room + _SPARE_THREADS, thread_name_prefix="grpc"),
            handlers=[self],
            options=[
                ("grpc.max_receive_message_length", min(limits.body_bytes, _MOST_BYTES)),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", _STREAMS),
                ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
            ],
        )
        self._server.add_insecure_port(f"unix-abstract:{self._private}")
        self._server.start()

    def connect(self, sock: socket.socket) -> SplicedConnection:
        """The connection of a client that speaks HTTP/2."""
        private = socket.socket(socket.AF_UNIX)
        try:
            private.connect(f"\0{self._private}")
            return SplicedConnection(sock, private)
        except (OSError, RuntimeError):
            private.close()
            raise

    def stop(self, seconds: float) -> None:
        """Let the answers under way be sent, and tell clients to go; returns when that is done or the time is up."""
        self._server.stop(seconds).wait(seconds)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The handler of a call; grpcio asks for it."""
        path = handler_call_details.method
        for group in self._groups:
            if path in group.methods:
                return _handler(group, group.methods[path], self._untaken)
        return _handler(self._general_model, _no_such_method, self._untaken)


def _handler(group: MethodGroup, method: Method, untaken: UntakenAnswers) -> grpc.RpcMethodHandler:
    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            untaken.give_up_late()
            answer = method(request, _deadline(context), _has_left(context))
            untaken.add(context, len(answer))
            return answer
        except ConnectionError as error:
            context.abort(grpc.StatusCode.CANCELLED, str(error))
        except Exception as error:
            context.abort(*group.refuse(faults.to_answer(error)))
        raise AssertionError("abort() raises")

    return grpc.unary_unary_rpc_method_handler(handle)


def _deadline(context: grpc.ServicerContext) -> Deadline | None:
    seconds = context.time_remaining()
    return None if seconds is None or seconds > FOREVER_SECONDS else Deadline.after(seconds)


def _has_left(context: grpc.ServicerContext) -> Callable[[], bool]:
    return lambda: not context.is_active()


def _no_such_method(*_: object) -> bytes:
    raise NotFound("Fail to find method of this name")
