"""GeneralModelService, Paddle Serving's own service, whatever protocol its messages come in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from ocr_serving.deadline import Deadline
from ocr_serving.server.service import ModelService
from ocr_serving.wire.messages import Request
from ocr_serving.wire.tensor import Tensor

_Encoded = TypeVar("_Encoded")


def answer(
    service: ModelService,
    request: Request,
    deadline: Deadline | None,
    encode: Callable[[str, Sequence[Tensor], Sequence[int]], _Encoded],
) -> _Encoded:
    """The Response to a Request.

    Args:
        service: runs the model.
        request: as received.
        deadline: when to give up.
        encode: puts engine name, outputs and profile_time into a Response, as messages.encode_response does.

    Raises:
        BadInput: a tensor that is none. What ModelService.infer raises passes through.
    """
    begin = _now_us()
    tensors = [Tensor(tensor.name, tensor.alias, tensor.unpack()) for tensor in request.tensors]
    outputs = service.infer(tensors, request.fetch, deadline)
    return encode(service.engine_name, outputs, [begin, _now_us()])


def _now_us() -> int:
    return time.time_ns() // 1000
