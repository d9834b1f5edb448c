"""GeneralModelService, Paddle Serving's own service, whatever protocol its messages come in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput
from ocr_serving.server.service import ModelService, check_size
from ocr_serving.wire.messages import MOST_RUNS, Request
from ocr_serving.wire.tensor import Tensor

_Encoded = TypeVar("_Encoded")


def answer(
    service: ModelService,
    request: Request,
    deadline: Deadline | None,
    encode: Callable[[str, Sequence[Sequence[Tensor]], Sequence[int]], _Encoded],
) -> _Encoded:
    """The Response to a Request.

    A request that brings its inputs several times over asks for as many runs, each answered with an output of its own:
    the rec batches of a page take a few requests, not one each. The original knows nothing of the kind.

    Args:
        service: runs the model.
        request: as received.
        deadline: when to give up.
        encode: puts engine name, the runs' outputs and profile_time into a Response, as messages.encode_response does.

    Raises:
        BadInput: a tensor that is none, or has a level of detail, or too many runs.
        TooLarge: the runs' outputs are too much for one answer. What ModelService.infer raises passes through.
    """
    begin = _now_us()
    if any(tensor.lod for tensor in request.tensors):
        raise BadInput("Level-of-detail offsets (lod) are not taken; send inputs of one shape.")
    tensors = [Tensor(tensor.name, tensor.alias, tensor.unpack()) for tensor in request.tensors]
    outputs: list[list[Tensor]] = []
    for run in _runs(tensors):
        outputs.append(service.infer(run, request.fetch, deadline))
        check_size(chain.from_iterable(outputs))
    return encode(service.engine_name, outputs, [begin, _now_us()])


def _runs(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The inputs of each run: the next one begins where a name comes again.

    Raises:
        BadInput: too many runs.
    """
    runs: list[list[Tensor]] = [[]]
    names: set[tuple[str, str]] = set()
    for tensor in tensors:
        name = tensor.name, tensor.alias
        if name in names:
            if len(runs) == MOST_RUNS:
                raise BadInput(f"A request may bring its inputs {MOST_RUNS} times at most.")
            runs.append([])
            names.clear()
        names.add(name)
        runs[-1].append(tensor)
    return runs


def _now_us() -> int:
    return time.time_ns() // 1000
