"""OpenVINO: the default engine on CPU. Reads ONNX and Paddle's .pdmodel."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ocr_serving.deadline import Deadline
from ocr_serving.engine.base import Array, EngineOptions, SessionPool, ctc_best, is_image
from ocr_serving.errors import ConfigError, EngineFailed
from ocr_serving.model_dir import DERIVED, ModelDir


class OpenVINOEngine:
    """See engine.base.Engine.

    A model is compiled once for each form it is asked for: (uint8 or float32 input) x (graph outputs or derived ones).
    The uint8 form normalises inside the graph; the derived form ends in the best class and its score, so the
    probabilities of all classes never leave the graph.
    """

    name = "openvino"

    def __init__(self, model: ModelDir, options: EngineOptions) -> None:
        import openvino

        self._ov = openvino
        self._core = openvino.Core()
        # OpenVINO fills its tables of array types on first use, and two threads that do so at once deadlock on the GIL.
        openvino.Tensor(np.zeros(1, np.float32)).get_element_type().to_dtype()
        self._normalization = model.normalization
        self._options = options
        self.precision = self._choose_precision(options.precision)
        try:
            # Told where the parameters are, it finds those of another name (model.pdmodel with params.pdiparams), too.
            self._graph = self._core.read_model(*(str(f) for f in (model.model_file, model.params_file) if f))
        except RuntimeError as error:
            raise ConfigError(
                f"OpenVINO cannot read {model.model_file}: the file is damaged or of another kind."
            ) from error
        self.inputs = tuple(port.get_any_name() for port in self._graph.inputs)
        self.outputs = tuple(port.get_any_name() for port in self._graph.outputs)
        self._lock = threading.Lock()
        self._forms: dict[tuple[bool, bool], SessionPool[Any]] = {}

    def run(self, feed: Mapping[str, Array], fetch: Sequence[str], deadline: Deadline | None) -> dict[str, Array]:
        """See engine.base.Engine.run."""
        image = self._normalization is not None and all(is_image(array) for array in feed.values())
        derived = bool(fetch) and all(name in DERIVED for name in fetch)
        arrays = [np.ascontiguousarray(feed[name]) for name in self.inputs]
        with self._pool(image, derived).borrow(deadline) as request:
            try:
                request.infer(arrays, share_inputs=True, share_outputs=True)
                found = [np.array(port.data) for port in request.output_tensors]
            except RuntimeError as error:
                raise EngineFailed("The engine refused this input: its shape does not fit the model.") from error
        if derived:
            best = dict(zip(DERIVED, (array[..., 0] for array in found), strict=True))
        else:
            best = dict(zip(self.outputs, found, strict=True))
            if any(name in DERIVED for name in fetch):
                best |= zip(DERIVED, ctc_best(found[0]), strict=True)
        return {name: best[name] for name in fetch}

    def close(self) -> None:
        """See engine.base.Engine.close."""
        self._forms.clear()

    def _pool(self, image: bool, derived: bool) -> SessionPool[Any]:
        with self._lock:
            form = (image, derived)
            if form not in self._forms:
                compiled = self._compile(image, derived)
                self._forms[form] = SessionPool(compiled.create_infer_request, self._options.sessions)
            return self._forms[form]

    def _compile(self, image: bool, derived: bool) -> Any:
        graph = self._graph.clone()
        if derived:
            graph = self._with_derived_outputs(graph)
        if image:
            graph = self._with_image_input(graph)
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": self._options.threads,
            "NUM_STREAMS": self._options.sessions,
            "INFERENCE_PRECISION_HINT": self.precision,
            "ENABLE_CPU_PINNING": False,  # det and rec processes share the cores; pinned threads would pile up on some
        }
        return self._core.compile_model(graph, "CPU", properties)

    def _with_derived_outputs(self, graph: Any) -> Any:
        from openvino import opset13 as ops

        scores = graph.outputs[0].get_node().input_value(0)
        best = ops.topk(scores, np.int64(1), -1, "max", "none", index_element_type="i32")
        return self._ov.Model([ops.result(best.output(1)), ops.result(best.output(0))], graph.get_parameters())

    def _with_image_input(self, graph: Any) -> Any:
        assert self._normalization is not None
        unit = 1 / self._normalization.scale
        prepare = self._ov.preprocess.PrePostProcessor(graph)
        for index in range(len(graph.inputs)):
            port = prepare.input(index)
            port.tensor().set_element_type(self._ov.Type.u8).set_layout(self._ov.Layout("NHWC"))
            port.model().set_layout(self._ov.Layout("NCHW"))
            steps = port.preprocess().convert_element_type(self._ov.Type.f32)
            steps.mean([mean * unit for mean in self._normalization.mean])
            steps.scale([std * unit for std in self._normalization.std])
        return prepare.build()

    def _choose_precision(self, wanted: str) -> str:
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if wanted == "auto":
            return "bf16" if "BF16" in capabilities else "f32"
        if wanted == "bf16" and "BF16" not in capabilities:
            raise ConfigError("This CPU does not compute in bf16; take precision auto or f32.")
        if wanted not in ("f32", "bf16"):
            raise ConfigError(f"OpenVINO on CPU takes precision auto, f32 or bf16, not {wanted}.")
        return wanted
