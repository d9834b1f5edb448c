"""PyTorch: for ONNX models on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from ocr_serving.deadline import Deadline
from ocr_serving.engine import onnx_graph
from ocr_serving.engine.base import Array, EngineOptions, SessionPool, pick
from ocr_serving.engine.torch_graph import TorchGraph
from ocr_serving.engine.torch_session import Calculation, CpuSession, GpuSession
from ocr_serving.errors import ConfigError, EngineFailed
from ocr_serving.model_dir import CTC_INDEX, DERIVED, DET_LOGITS, ModelDir, Normalization


class TorchEngine:
    """See engine.base.Engine. Batches of images are filled up to 1, 2, 4, ... rows, so that fewer shapes come."""

    name = "torch"

    def __init__(self, model: ModelDir, options: EngineOptions) -> None:
        if options.precision not in ("auto", "f32"):
            raise ConfigError(f"PyTorch takes precision auto or f32, not {options.precision}.")
        graph = _load(model)
        on_gpu = options.device == "gpu"
        self.precision = "tf32" if on_gpu and options.precision == "auto" else "f32"
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        # cuDNN compiles kernels for each new shape of a depthwise convolution, 1 to 5 s a model; PyTorch has its own.
        torch.backends.cudnn.enabled = False
        device = torch.device("cuda", options.gpu_id) if on_gpu else torch.device("cpu")
        try:
            self._graph = TorchGraph(graph, device)
            self._normalize = _normalizer(model.normalization, device)
            make = (lambda: GpuSession(device)) if on_gpu else CpuSession
            self._sessions: SessionPool[GpuSession | CpuSession] = SessionPool(make, options.sessions)
        except RuntimeError as error:
            raise ConfigError(f"PyTorch cannot use {device}: {str(error).splitlines()[0]}") from error
        self._model = model
        self.inputs, self.outputs = self._graph.inputs, self._graph.outputs
        *_, last = [side.dim_value for side in graph.graph.output[0].type.tensor_type.shape.dim] or [0]
        self.classes = last or None
        self._forms = {derived: self._form(derived) for derived in (False, True)}
        self._try_out()

    def run(self, feed: Mapping[str, Array], fetch: Sequence[str], deadline: Deadline | None) -> dict[str, Array]:
        """See engine.base.Engine.run."""
        names, calculate = self._forms[bool(fetch) and all(name in DERIVED for name in fetch)]
        arrays = [np.require(feed[name], requirements=["C", "W"]) for name in self.inputs]
        rows = None
        if self._model.normalization is not None:
            rows, arrays = len(arrays[0]), [_filled_up(array) for array in arrays]
        with self._sessions.borrow(deadline) as session, torch.inference_mode():
            try:
                found = session.run(calculate, [torch.from_numpy(array) for array in arrays])
            except torch.cuda.OutOfMemoryError as error:
                raise EngineFailed("The GPU has too little memory left for this input.") from error
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                if "CUDA" in str(error) or "CUBLAS" in str(error):
                    raise EngineFailed("The GPU failed.") from error
                raise EngineFailed("The engine refused this input: its shape does not fit the model.") from error
        return pick(self._model, {name: out.numpy()[:rows] for name, out in zip(names, found, strict=True)}, fetch)

    def _try_out(self) -> None:
        """Read a blank image, where images are read, so that what cannot run is no surprise for the first request.

        Raises:
            ConfigError: the model has something that is not known here, or PyTorch is not made for this GPU.
        """
        if self._model.normalization is None:
            return
        blank = np.zeros((1, self._model.image_height or 64, 64, 3), np.uint8)
        try:
            self.run(dict.fromkeys(self.inputs, blank), self.outputs, None)
        except EngineFailed as error:
            reason = str(error.__cause__).splitlines()[0]
            raise ConfigError(f"PyTorch cannot run {self._model.model_file.name}: {reason}") from error

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
        calculate, normalize = self._graph.calculation(fetch), self._normalize  # no reference to the engine itself
        return lambda inputs: calculate([normalize(tensor) for tensor in inputs])


def _load(model: ModelDir) -> Any:
    """The model as onnx.ModelProto.

    Raises:
        ConfigError: it is no valid ONNX model, or the onnx package is missing.
    """
    if find_spec("onnx") is None:
        raise ConfigError("Engine torch needs the onnx package, too; install it with: pip install onnx.")
    graph = onnx_graph.load(model.model_file) if model.format == "onnx" else None
    if graph is None:
        raise ConfigError(f"PyTorch cannot read {model.model_file.name}: it takes valid ONNX models.")
    return graph


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
