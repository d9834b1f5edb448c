"""What the model server says and does in the Open Inference Protocol v2, over HTTP and gRPC alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ocr_serving.deadline import Deadline
from ocr_serving.errors import NotFound
from ocr_serving.model_dir import Variable
from ocr_serving.server.http_pages import SERVER, server_version
from ocr_serving.server.service import ModelService, ServedModel
from ocr_serving.server.workers import Workers
from ocr_serving.wire import oip_tensor, tensor
from ocr_serving.wire.oip import OipRequest
from ocr_serving.wire.tensor import Tensor

VERSION = "1"
"""Of every model; the protocol asks for one."""
_ANY = -1
"""A dimension that is the caller's choice."""

_Encoded = TypeVar("_Encoded")


class OipService:
    """A ModelService in the protocol's terms; dicts are messages, their keys the protocol's. Thread-safe."""

    def __init__(self, service: ModelService, workers: Workers) -> None:
        self._service = service
        self._workers = workers

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered; every model is loaded before the port is opened."""
        return not self._workers.draining

    def server_metadata(self) -> dict[str, Any]:
        """The server's name, version and extensions."""
        return {"name": SERVER, "version": server_version(), "extensions": ["binary_tensor_data"]}

    def model(self, name: str, version: str) -> ServedModel:
        """A served model.

        Raises:
            NotFound: there is none of that name and version ("" is any).
        """
        if version not in ("", VERSION):
            raise NotFound(f"No such version; every model has version {VERSION} only.")
        return self._service.model(name)

    def is_model_ready(self, name: str, version: str) -> bool:
        """Whether requests to that model are answered."""
        try:
            self.model(name, version)
        except NotFound:
            return False
        return self.is_ready

    def model_metadata(self, name: str, version: str) -> dict[str, Any]:
        """A model's inputs and outputs, in the order of its configuration.

        Raises:
            NotFound: see model().
        """
        model = self.model(name, version)
        return {
            "name": name,
            "versions": [VERSION],
            "platform": "ocr_serving",
            "inputs": [_describe(variable) for variable in model.feeds],
            "outputs": [_describe(variable) for variable in model.fetches],
        }

    def infer(
        self,
        model: str,
        request: OipRequest,
        deadline: Deadline | None,
        arrival: float,
        encode: Callable[[str, str, OipRequest, Iterable[Tensor]], _Encoded],
    ) -> _Encoded:
        """The answer to a request.

        Args:
            model: name of a model.
            request: as received.
            deadline: when to give up, if not sooner by the request's own limit.
            arrival: when the request came, as of time.monotonic().
            encode: puts model, version, request and outputs into an answer.

        Raises:
            What ModelService.infer raises.
        """
        if request.seconds is not None:
            limit = Deadline(arrival + request.seconds)
            limit.check("while it waited for a free thread")
            deadline = limit if deadline is None or limit.at < deadline.at else deadline
        outputs = self._service.infer(request.tensors, request.fetch, deadline, model)
        return encode(model, VERSION, request, outputs)


def _describe(variable: Variable) -> dict[str, Any]:
    shape = list(variable.shape)
    if len(shape) == 3:  # an image: its declared height and width are an example
        shape[1:] = _ANY, _ANY
    dtype = tensor.dtype_of(variable.elem_type)
    datatype = oip_tensor.BYTES if dtype is None else oip_tensor.datatype_of(dtype)
    return {"name": variable.alias, "datatype": datatype, "shape": [_ANY, *shape]}
