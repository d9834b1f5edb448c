"""Which engine loads a model folder."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from ocr_serving.engine.base import Engine, EngineOptions
from ocr_serving.engine.processor import has_amx
from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import CTC_INDEX, ModelDir
from ocr_serving.settings import Settings

_ENGINES = {
    "openvino": ("openvino", "pip install openvino", "OpenVINOEngine"),
    "paddle": ("paddle", "pip install 'paddlepaddle>=3.2.2,<3.3'", "PaddleEngine"),
    "onnxruntime": ("onnxruntime", "pip install 'ocr-serving[onnxruntime]'", "OnnxRuntimeEngine"),
    "torch": ("torch", "pip install 'ocr-serving[gpu]'", "TorchEngine"),
}
"""Name of an engine, and of its module here -> the package it needs, how to install that, and its class."""


def load_engine(model: ModelDir, settings: Settings, sessions: int = 1) -> Engine:
    """Load the model with the engine that the settings name, or with the best one installed (engine "auto").

    Args:
        model: a checked model folder.
        settings: engine, device, gpu_id, precision and threads are used.
        sessions: runs that may go on at once.

    Raises:
        ConfigError: the engine, its package or the device is not there, or it cannot read this model.
    """
    name = _choose(model, settings) if settings.engine == "auto" else settings.engine
    package, install, kind = _ENGINES[name]
    on_gpu = settings.device == "gpu"
    if find_spec(package) is None:
        what = "No GPU can be used: engine" if on_gpu else "Engine"
        raise ConfigError(f"{what} {name} is not installed; install it with: {install}.")
    if on_gpu:
        _require_gpu(name, settings.gpu_id)
    options = EngineOptions(settings.device, settings.gpu_id, settings.precision, settings.inference_threads, sessions)
    engine: Engine = getattr(import_module(f"ocr_serving.engine.{name}"), kind)(model, options)
    return engine


def _choose(model: ModelDir, settings: Settings) -> str:
    """On a GPU the engine that runs this format there; on CPU the fastest installed one that reads it."""
    if settings.device == "gpu":
        return "torch" if model.format == "onnx" else "paddle"
    native = "onnxruntime" if model.format == "onnx" else "paddle"
    pir = model.model_file.suffix == ".json"  # OpenVINO reads .pdmodel, but not Paddle's newer PIR format
    order = ["paddle"] if pir else ["openvino", native]
    if native == "onnxruntime" and _rec_without_amx(model, settings):
        order.reverse()
    for name in order:
        if find_spec(_ENGINES[name][0]) is not None:
            return name
    raise ConfigError(f"No installed engine reads {model.model_file.name}; install one with: {_ENGINES[order[0]][1]}.")


def _rec_without_amx(model: ModelDir, settings: Settings) -> bool:
    """Whether this is a rec model on a processor without AMX, or with precision f32.

    There ONNX Runtime is the faster one: it computes in 8 bits, and a run of another shape than the last, as most of
    rec are, costs it nothing. AVX-512 multiplies bytes twice as fast as bf16 (docs/performance.md).
    """
    if CTC_INDEX not in model.derived:
        return False
    return settings.precision == "f32" or (settings.precision == "auto" and not has_amx())


def _require_gpu(engine: str, number: int) -> None:
    if engine == "torch":
        import torch

        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found == 0:
            raise ConfigError("No GPU can be used: PyTorch finds none that its CUDA and the driver (nvidia-smi) fit.")
    elif engine == "paddle":
        import paddle

        found = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
        if found == 0:
            raise ConfigError(
                "No GPU can be used: paddlepaddle's GPU build or an NVIDIA GPU is missing; install paddlepaddle-gpu "
                "(3.2.2) as its installation guide says."
            )
    else:
        raise ConfigError(f"Engine {engine} runs on the CPU here; for a GPU take engine torch or paddle.")
    if number >= found:
        raise ConfigError(f"There is no GPU {number}: {found} can be used, and the first one is 0.")
