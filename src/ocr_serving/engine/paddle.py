"""Paddle Inference: for Paddle models (.pdmodel, PIR .json), on CPU with oneDNN or on Paddle's GPU build."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ocr_serving.deadline import Deadline
from ocr_serving.engine.base import Array, EngineOptions, Normalizer, SessionPool, pick
from ocr_serving.errors import ConfigError, EngineFailed
from ocr_serving.model_dir import ModelDir

_GPU_MEMORY_MB = 500
"""Paddle's first allocation, which grows; enough for the OCR models."""
_ONEDNN_SHAPES = 64
"""oneDNN's primitives are kept for so many shapes of inputs; unbounded, memory grows with every new size."""


class PaddleEngine:
    """See engine.base.Engine. Each session is a clone of one predictor, weights shared."""

    name = "paddle"

    def __init__(self, model: ModelDir, options: EngineOptions) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tools for building extensions
            from paddle import inference

        if model.params_file is None:
            raise ConfigError(
                f"The paddle engine cannot read {model.model_file.name}; take engine openvino or onnxruntime."
            )
        self._model = model
        self._prepare = Normalizer(model.normalization)
        config = inference.Config(str(model.model_file), str(model.params_file))
        config.disable_glog_info()
        self.precision = self._configure(config, inference, options)
        try:
            first = inference.create_predictor(config)
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"Paddle cannot load {model.path}: a file in it is damaged.") from error
        self.inputs = tuple(first.get_input_names())
        self.outputs = tuple(first.get_output_names())
        self.classes: int | None = None
        clones = iter([first] + [first.clone() for _ in range(options.sessions - 1)])
        self._sessions: SessionPool[Any] = SessionPool(lambda: next(clones), options.sessions)

    def run(self, feed: Mapping[str, Array], fetch: Sequence[str], deadline: Deadline | None) -> dict[str, Array]:
        """See engine.base.Engine.run."""
        with self._sessions.borrow(deadline) as predictor:
            try:
                for name in self.inputs:
                    predictor.get_input_handle(name).copy_from_cpu(self._prepare(feed[name]))
                predictor.run()
                found = {name: predictor.get_output_handle(name).copy_to_cpu() for name in self.outputs}
            except (RuntimeError, ValueError, OSError) as error:
                raise EngineFailed("The engine refused this input: its shape does not fit the model.") from error
        return pick(self._model, found, fetch)

    def _configure(self, config: Any, inference: Any, options: EngineOptions) -> str:
        """Set device, threads and precision; returns the precision in use."""
        wanted = "f32" if options.precision == "auto" else options.precision
        if options.device == "gpu":
            if wanted == "bf16":
                raise ConfigError("Paddle on a GPU takes precision auto, f32 or fp16, not bf16.")
            half = inference.PrecisionType.Half if wanted == "fp16" else inference.PrecisionType.Float32
            config.enable_use_gpu(_GPU_MEMORY_MB, options.gpu_id, half)
            return wanted
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(_ONEDNN_SHAPES)
        config.set_cpu_math_library_num_threads(max(1, options.threads // options.sessions))
        if wanted == "bf16":
            config.enable_mkldnn_bfloat16()
        elif wanted != "f32":
            raise ConfigError(f"Paddle on CPU takes precision auto, f32 or bf16, not {wanted}.")
        return wanted
