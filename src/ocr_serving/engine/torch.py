"""PyTorch: for ONNX models on an NVIDIA GPU."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ocr_serving.deadline import Deadline
from ocr_serving.engine import onnx_graph
from ocr_serving.engine.base import Array, EngineOptions, SessionPool, pick
from ocr_serving.engine.torch_graph import TorchGraph
from ocr_serving.errors import ConfigError, EngineFailed
from ocr_serving.model_dir import CTC_INDEX, DERIVED, DET_LOGITS, ModelDir, Normalization

logger = logging.getLogger(__name__)

_KINDS = 256
"""Shapes that a session remembers. A recording of one holds its inputs, its outputs and a few hundred launches."""

Tensors = Sequence[torch.Tensor]
Calculation = Callable[[Tensors], list[torch.Tensor]]


@dataclass(frozen=True)
class _Recording:
    """The launches of a calculation for inputs of one shape (a CUDA graph): played back, they take the CPU no time."""

    graph: torch.cuda.CUDAGraph
    inputs: Tensors
    outputs: Tensors


class _Session:
    """A stream of work on a GPU; used by one thread at a time.

    What comes a second time in the same shape is recorded, as launching some 400 kernels one by one takes the CPU five
    times as long as they take the GPU. All recordings of a session share one working memory.
    """

    _one_at_a_time = threading.Lock()
    """PyTorch allows no more than one recording in a process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._memory = torch.cuda.graph_pool_handle()
        self._known: OrderedDict[Hashable, _Recording | None] = OrderedDict()
        self._only_eager = False

    def run(self, calculate: Calculation, inputs: Tensors) -> list[torch.Tensor]:
        """What it makes of inputs, both in the CPU's memory."""
        kind = calculate, *((tensor.shape, tensor.dtype) for tensor in inputs)
        with torch.cuda.stream(self._stream):
            is_new = kind not in self._known
            recording = self._known.pop(kind, None)
            if recording is None:
                placed = [tensor.to(self._device) for tensor in inputs]
                found: Tensors = calculate(placed)  # also makes what a recording needs: handles, loaded kernels
                self._known[kind] = None if is_new or self._only_eager else self._record(calculate, placed)
            else:
                self._known[kind] = recording
                for static, tensor in zip(recording.inputs, inputs, strict=True):
                    static.copy_(tensor)
                recording.graph.replay()
                found = recording.outputs
            if len(self._known) > _KINDS:
                self._known.popitem(last=False)
            return [output.cpu() for output in found]

    def _record(self, calculate: Calculation, inputs: Tensors) -> _Recording | None:
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
            logger.warning("The GPU is used without recordings from now on: %s", error)
            self._only_eager = True
            return None
        return _Recording(graph, inputs, outputs)


class _CpuSession:
    """Runs where there is no GPU."""

    def run(self, calculate: Calculation, inputs: Tensors) -> list[torch.Tensor]:
        """See _Session.run."""
        return calculate(inputs)


class TorchEngine:
    """See engine.base.Engine. Batches are filled up to 1, 2, 4, ... rows, so that fewer shapes come."""

    name = "torch"

    def __init__(self, model: ModelDir, options: EngineOptions) -> None:
        if options.precision not in ("auto", "f32"):
            raise ConfigError(f"PyTorch takes precision auto or f32, not {options.precision}.")
        graph = onnx_graph.load(model.model_file) if model.format == "onnx" else None
        if graph is None:
            raise ConfigError(f"PyTorch cannot read {model.model_file.name}: it takes valid ONNX models.")
        on_gpu = options.device == "gpu"
        self.precision = "tf32" if on_gpu and options.precision == "auto" else "f32"
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        # cuDNN compiles kernels for each new shape of a depthwise convolution, 1 to 5 s a model; PyTorch has its own.
        torch.backends.cudnn.enabled = False
        device = torch.device("cuda", options.gpu_id) if on_gpu else torch.device("cpu")
        self._model = model
        self._graph = TorchGraph(graph, device)
        self.inputs, self.outputs = self._graph.inputs, self._graph.outputs
        *_, last = [side.dim_value for side in graph.graph.output[0].type.tensor_type.shape.dim] or [0]
        self.classes = last or None
        self._normalize = _normalizer(model.normalization, device)
        self._forms = {derived: self._form(derived) for derived in (False, True)}
        make = (lambda: _Session(device)) if on_gpu else _CpuSession
        self._sessions: SessionPool[_Session | _CpuSession] = SessionPool(make, options.sessions)

    def run(self, feed: Mapping[str, Array], fetch: Sequence[str], deadline: Deadline | None) -> dict[str, Array]:
        """See engine.base.Engine.run."""
        names, calculate = self._forms[bool(fetch) and all(name in DERIVED for name in fetch)]
        rows = len(feed[self.inputs[0]])
        tensors = [torch.from_numpy(_filled_up(np.ascontiguousarray(feed[name]))) for name in self.inputs]
        with self._sessions.borrow(deadline) as session, torch.inference_mode():
            try:
                found = session.run(calculate, tensors)
            except torch.cuda.OutOfMemoryError as error:
                raise EngineFailed("The GPU has too little memory left for this input.") from error
            except RuntimeError as error:
                raise EngineFailed("The engine refused this input: its shape does not fit the model.") from error
        arrays = {name: output.numpy()[:rows] for name, output in zip(names, found, strict=True)}
        return pick(self._model, arrays, fetch)

    def close(self) -> None:
        """See engine.base.Engine.close; a model is freed with its last reference."""

    def _form(self, derived: bool) -> tuple[Sequence[str], Calculation]:
        """Names of outputs, and what makes them of the inputs: the graph's own, or derived ones if it ends as usual."""
        logits = self._graph.taken_by("Sigmoid", self.outputs[0])
        if derived and DET_LOGITS in self._model.derived and logits is not None:
            return [DET_LOGITS], self._calculation([logits])
        if derived and CTC_INDEX in self._model.derived:
            probabilities = self._calculation(self.outputs[:1])
            return self._model.derived, lambda inputs: _best_classes(*probabilities(inputs))
        return self.outputs, self._calculation(self.outputs)

    def _calculation(self, fetch: Sequence[str]) -> Calculation:
        calculate = self._graph.calculation(fetch)
        return lambda inputs: calculate([self._normalize(tensor) for tensor in inputs])


def _normalizer(how: Normalization | None, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """What does engine.base.normalize() on the device, but for rounding; it leaves what is no image as it is."""
    if how is None:
        return lambda tensor: tensor
    std = np.array(how.std)
    factor, shift = (
        torch.tensor(part, dtype=torch.float32, device=device).view(3, 1, 1)
        for part in (how.scale / std, -np.array(how.mean) / std)
    )
    return lambda tensor: tensor.permute(0, 3, 1, 2) * factor + shift if tensor.dtype == torch.uint8 else tensor


def _filled_up(array: Array) -> Array:
    """The batch with rows of zeros up to a power of two."""
    lacking = (1 << (len(array) - 1).bit_length()) - len(array)
    return np.pad(array, [(0, lacking)] + [(0, 0)] * (array.ndim - 1)) if lacking else array


def _best_classes(probabilities: torch.Tensor) -> list[torch.Tensor]:
    """Index, int32, and value of the greatest along the last axis."""
    score, index = probabilities.max(-1)
    return [index.int(), score]
