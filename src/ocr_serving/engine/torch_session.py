"""Runs of a calculation in PyTorch, on a GPU or, where there is none, on the CPU."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)

_KINDS = 256
"""Shapes that a session remembers."""
_RECORDED_BYTES = 2**29
"""What the inputs and outputs of a session's recordings take together at most; it is kept for each recording."""
_LARGEST_BYTES = 2**25
"""The same of one recording. Of larger ones (all classes of a batch of lines) launching is a small part."""

Tensors = Sequence[torch.Tensor]
Calculation = Callable[[Tensors], list[torch.Tensor]]


@dataclass(frozen=True)
class _Recording:
    """The launches of a calculation for inputs of one shape (a CUDA graph): played back, they take the CPU no time."""

    graph: torch.cuda.CUDAGraph
    inputs: Tensors
    outputs: Tensors


class GpuSession:
    """A stream of work on a GPU; used by one thread at a time.

    What comes a second time in the same shape is recorded, as launching some 400 kernels one by one takes the CPU five
    times as long as they take the GPU. All recordings of a session share one working memory.
    """

    _one_at_a_time = threading.Lock()
    """PyTorch allows no more than one recording in a process, and no emptying of its cache meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._memory: tuple[int, int] | None = None  # of the recordings, made with the first
        self._known: OrderedDict[Hashable, _Recording | None] = OrderedDict()
        self._records = True

    def run(self, calculate: Calculation, inputs: Tensors) -> list[torch.Tensor]:
        """What it makes of inputs; both are in the CPU's memory.

        Raises:
            RuntimeError: it does not take them, or the GPU failed; torch.cuda.OutOfMemoryError where memory is lacking.
        """
        kind = calculate, *((tensor.shape, tensor.dtype) for tensor in inputs)
        try:
            with torch.cuda.stream(self._stream):
                return [output.cpu() for output in self._outputs(kind, calculate, inputs)]
        except torch.cuda.OutOfMemoryError:
            self._forget_all()
            raise

    def _outputs(self, kind: Hashable, calculate: Calculation, inputs: Tensors) -> Tensors:
        is_new = kind not in self._known
        recording = self._known.pop(kind, None)
        if recording is not None:
            for static, tensor in zip(recording.inputs, inputs, strict=True):
                static.copy_(tensor)
            recording.graph.replay()
            outputs = recording.outputs
        else:
            placed = [tensor.to(self._device) for tensor in inputs]
            outputs = calculate(placed)  # also makes what a recording needs: handles, loaded kernels
            if not is_new and self._records and _bytes([*placed, *outputs]) <= _LARGEST_BYTES:
                recording = self._record(calculate, placed)
        self._known[kind] = recording
        self._forget_oldest()
        return outputs

    def _record(self, calculate: Calculation, inputs: Tensors) -> _Recording | None:
        """None where that fails; unless memory was lacking, nothing is recorded from then on."""
        if not any(self._known.values()):
            self._memory = torch.cuda.graph_pool_handle()  # PyTorch gave the old one up with its last recording
        graph = torch.cuda.CUDAGraph()
        try:
            with self._one_at_a_time:
                self._stream.synchronize()
                graph.capture_begin(self._memory, capture_error_mode="thread_local")
                try:
                    outputs = calculate(inputs)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            logger.warning("A shape was not recorded for the GPU: %s", error)
            self._records = isinstance(error, torch.cuda.OutOfMemoryError)
            return None
        return _Recording(graph, inputs, outputs)

    def _forget_oldest(self) -> None:
        while len(self._known) > _KINDS or sum(map(_recorded_bytes, self._known.values())) > _RECORDED_BYTES:
            self._known.popitem(last=False)

    def _forget_all(self) -> None:
        """Give memory back: that of recordings, and what PyTorch keeps for later."""
        self._known.clear()
        with self._one_at_a_time:
            torch.cuda.empty_cache()


class CpuSession:
    """See GpuSession."""

    def run(self, calculate: Calculation, inputs: Tensors) -> list[torch.Tensor]:
        """See GpuSession.run."""
        return [output.clone() for output in calculate(inputs)]


def _recorded_bytes(recording: _Recording | None) -> int:
    return 0 if recording is None else _bytes([*recording.inputs, *recording.outputs])


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
