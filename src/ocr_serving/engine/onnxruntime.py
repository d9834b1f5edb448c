"""ONNX Runtime: for ONNX models on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from ocr_serving.deadline import Deadline
from ocr_serving.engine import onnx_graph, onnx_stem
from ocr_serving.engine.base import Array, EngineOptions, Normalizer, SessionPool, normalize, pick
from ocr_serving.errors import ConfigError, EngineFailed
from ocr_serving.model_dir import CTC_INDEX, ModelDir


class OnnxRuntimeEngine:
    """See engine.base.Engine. One ONNX Runtime session is thread-safe; the pool only bounds how many run at once.

    With precision "int8", the choice of "auto" for rec, lines are run one by one: together, they would be
    rounded together, and the text of one would depend on the others.
    """

    name = "onnxruntime"

    def __init__(self, model: ModelDir, options: EngineOptions) -> None:
        import onnxruntime

        if model.format != "onnx":
            raise ConfigError(f"ONNX Runtime cannot read {model.model_file.name}; take engine openvino or paddle.")
        self.precision, graph = self._load(model, options)
        self._model = model
        self._prepare = Normalizer(model.normalization)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = max(1, options.threads // options.sessions)
        settings.log_severity_level = 4  # what it refuses is said by our errors
        if self.precision == "int8":  # tanh's formula is off by 0.0005 at most, far less than the rounding to 8 bits
            settings.add_session_config_entry("optimization.enable_gelu_approximation", "1")
        try:
            self._session = onnxruntime.InferenceSession(graph, settings, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exception classes share no base but Exception
            raise ConfigError(f"ONNX Runtime cannot load {model.model_file}: {type(error).__name__}.") from error
        self.inputs = tuple(port.name for port in self._session.get_inputs())
        self.outputs = tuple(port.name for port in self._session.get_outputs())
        *_, last = self._session.get_outputs()[0].shape or [None]
        self.classes = last if isinstance(last, int) else None
        self._sessions: SessionPool[Any] = SessionPool(lambda: self._session, options.sessions)

    def run(self, feed: Mapping[str, Array], fetch: Sequence[str], deadline: Deadline | None) -> dict[str, Array]:
        """See engine.base.Engine.run."""
        arrays = {name: self._prepare(feed[name]) for name in self.inputs}
        with self._sessions.borrow(deadline) as session:
            found: list[dict[str, Array]] = []
            for part in self._parts(arrays):
                if found and deadline is not None:
                    deadline.check("between two lines of a batch")
                found.append(self._run(session, part, fetch))
        return {name: np.concatenate([part[name] for part in found]) if found[1:] else found[0][name] for name in fetch}

    def _run(self, session: Any, arrays: Mapping[str, Array], fetch: Sequence[str]) -> dict[str, Array]:
        try:
            found = dict(zip(self.outputs, session.run(list(self.outputs), arrays), strict=True))
        except Exception as error:  # as above
            raise EngineFailed("The engine refused this input: its shape does not fit the model.") from error
        return pick(self._model, found, fetch)

    def _parts(self, arrays: Mapping[str, Array]) -> Iterator[Mapping[str, Array]]:
        """What is run together."""
        if self.precision != "int8":
            yield arrays
            return
        for i in range(len(next(iter(arrays.values())))):
            yield {name: array[i : i + 1] for name, array in arrays.items()}

    @staticmethod
    def _load(model: ModelDir, options: EngineOptions) -> tuple[str, str | bytes]:
        """The precision, and what ONNX Runtime loads: a path or a model.

        It is int8 where that has been measured to cost no accuracy (docs/decisions.md): rec.
        """
        if options.precision not in ("auto", "f32"):
            raise ConfigError(f"ONNX Runtime takes precision auto or f32, not {options.precision}.")
        if options.precision == "auto" and CTC_INDEX in model.derived and find_spec("onnx") is not None:
            graph = onnx_graph.load(model.model_file)
            if graph is not None and onnx_graph.quantize_products(graph):
                if model.normalization is not None and model.image_height is not None:
                    spots = onnx_stem.spots(model.image_height)
                    onnx_stem.quantize_stem(graph, normalize(spots, model.normalization))
                return "int8", graph.SerializeToString()
        return "f32", str(model.model_file)
