"""The gRPC methods of the model server: bytes of a request in, bytes of its answer out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, OcrServingError
from ocr_serving.server import general_model
from ocr_serving.server.oip import OipService
from ocr_serving.server.service import ModelService
from ocr_serving.server.workers import Workers
from ocr_serving.wire import messages, meta, oip_messages
from ocr_serving.wire import oip_pb2 as pb

Method: TypeAlias = Callable[[bytes, "Deadline | None", Callable[[], bool]], bytes]
"""(request, deadline, whether the client has left) -> answer; what it raises goes to MethodGroup.refuse()."""

_OIP = "/inference.GRPCInferenceService"


class MethodGroup(Protocol):
    """Methods with one manner of refusing. Thread-safe.

    Attributes:
        methods: "/package.Service/Method" -> method.
    """

    methods: Mapping[str, Method]

    def refuse(self, error: OcrServingError) -> tuple[grpc.StatusCode, str]:
        """Status and details of an answer that is an error."""
        ...


class GeneralModelMethods:
    """Paddle Serving's own service. See MethodGroup."""

    def __init__(self, service: ModelService, workers: Workers, address: str, check_room: Callable[[], None]) -> None:
        """
        Args:
            service: answers.
            workers: it does so on their threads.
            address: the server's, with which error texts begin.
            check_room: raises Overloaded where no further answer can be held.
        """
        self._service = service
        self._check_room = check_room
        self._workers = workers
        self._address = address
        self.methods: Mapping[str, Method] = {f"/{meta.SERVICE}/{method}": self._infer for method in meta.METHODS}

    def refuse(self, error: OcrServingError) -> tuple[grpc.StatusCode, str]:
        """brpc's status and error text."""
        return _status(error, grpc.StatusCode.UNIMPLEMENTED), meta.error_text(error, self._address)

    def _infer(self, request: bytes, deadline: Deadline | None, has_left: Callable[[], bool]) -> bytes:
        def run() -> bytes:
            message = messages.decode_request(memoryview(request))
            return b"".join(general_model.answer(self._service, message, deadline, messages.encode_response))

        with self._service.metrics.request("grpc"):
            self._check_room()
            return self._workers.call(run, has_left)


class OipMethods:
    """The Open Inference Protocol v2. See MethodGroup."""

    def __init__(self, service: ModelService, workers: Workers, check_room: Callable[[], None]) -> None:
        """See GeneralModelMethods; whether the server lives can be asked without room."""
        self._oip = OipService(service, workers)
        self._check_room = check_room
        self._metrics = service.metrics
        self._workers = workers
        self.methods: Mapping[str, Method] = {
            f"{_OIP}/ServerLive": lambda *_: pb.ReadyResponse(ready=True).SerializeToString(),
            f"{_OIP}/ServerReady": lambda *_: pb.ReadyResponse(ready=self._oip.is_ready).SerializeToString(),
            f"{_OIP}/ModelReady": self._model_ready,
            f"{_OIP}/ServerMetadata": self._server_metadata,
            f"{_OIP}/ModelMetadata": self._model_metadata,
            f"{_OIP}/ModelInfer": self._infer,
        }

    def refuse(self, error: OcrServingError) -> tuple[grpc.StatusCode, str]:
        """The status that gRPC's own clients understand, and the sentence."""
        return _status(error, grpc.StatusCode.NOT_FOUND), str(error)

    def _model_ready(self, request: bytes, *_: object) -> bytes:
        asked = _model_request(request)
        return pb.ReadyResponse(ready=self._oip.is_model_ready(asked.name, asked.version)).SerializeToString()

    def _server_metadata(self, *_: object) -> bytes:
        return pb.ServerMetadataResponse(**self._oip.server_metadata()).SerializeToString()

    def _model_metadata(self, request: bytes, *_: object) -> bytes:
        asked = _model_request(request)
        return pb.ModelMetadataResponse(**self._oip.model_metadata(asked.name, asked.version)).SerializeToString()

    def _infer(self, request: bytes, deadline: Deadline | None, has_left: Callable[[], bool]) -> bytes:
        def run() -> bytes:
            model, version, asked = oip_messages.decode_request(request)
            self._oip.model(model, version)
            return self._oip.infer(model, asked, deadline, arrival, oip_messages.encode_response)

        arrival = time.monotonic()
        with self._metrics.request("oip-grpc"):
            self._check_room()
            return self._workers.call(run, has_left)


def _status(error: OcrServingError, not_found: grpc.StatusCode) -> grpc.StatusCode:
    """That of an error; clients may try again after UNAVAILABLE, as brpc's own map has it (src/brpc/grpc.cpp)."""
    of_status = {404: not_found, 503: grpc.StatusCode.UNAVAILABLE, 504: grpc.StatusCode.DEADLINE_EXCEEDED}
    other = grpc.StatusCode.INVALID_ARGUMENT if isinstance(error, BadInput) else grpc.StatusCode.INTERNAL
    return of_status.get(error.status, other)


def _model_request(request: bytes) -> pb.ModelRequest:
    try:
        return pb.ModelRequest.FromString(request)
    except DecodeError as error:
        raise BadInput("The bytes are no such request.") from error
