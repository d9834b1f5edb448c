"""OpenVINO: the default engine on CPU. Reads ONNX and Paddle's .pdmodel."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ocr_serving.deadline import Deadline
from ocr_serving.engine import int8_layers, openvino_graph, openvino_int8, openvino_package
from ocr_serving.engine.base import Array, EngineOptions, SessionPool, is_image, pick
from ocr_serving.engine.processor import has_amx
from ocr_serving.errors import ConfigError, EngineFailed
from ocr_serving.model_dir import CTC_INDEX, DERIVED, DET_LOGITS, ModelDir

_HEAD_ROWS = 40
"""Time steps that the CTC head takes at once in bf16: 40 x 18710 logits stay in the second-level cache of a core with
AMX, which makes a step cost half as much as in batches of 160 (docs/performance.md). In f32 they stay in no cache, and
the class matrix, read anew for each 40, costs more than it saves."""

_DET_PRIMITIVES = 500
"""Compiled layers of a det model that OpenVINO keeps. Images come in hundreds of sizes, and its default of 5000 took
480 MB for 144 of them; with 500 it took 110 MB, and no more time."""

_INT8_MACHINES = ("x86_64", "AMD64")
"""Where 8 bits have been measured."""
_LEAST_PRODUCTS = 96 * 96
"""Products a pixel, inputs times outputs, of the convolutions that 8 bits make faster than bf16 without AMX does."""


class _Session:
    """One infer request and, for the derived form, one of the CTC head; used by one thread at a time."""

    def __init__(self, request: Any, head: Any) -> None:
        self._request = request
        self._head = head

    def run(self, arrays: list[Array]) -> list[Array]:
        """The outputs: those of the graph, or index int32 (n, t) and score float32 (n, t)."""
        self._request.infer(arrays, share_inputs=True, share_outputs=True)
        if self._head is None:
            return [np.array(tensor.data) for tensor in self._request.output_tensors]
        features = self._request.output_tensors[0].data
        steps = features.reshape(-1, features.shape[-1])
        index, score = np.empty(len(steps), np.int32), np.empty(len(steps), np.float32)
        for start in range(0, len(steps), _HEAD_ROWS):
            rows = steps[start : start + _HEAD_ROWS]
            padded = rows if len(rows) == _HEAD_ROWS else np.pad(rows, ((0, _HEAD_ROWS - len(rows)), (0, 0)))
            self._head.infer([padded], share_inputs=True, share_outputs=True)
            for out, tensor in zip((index, score), self._head.output_tensors, strict=True):
                out[start : start + len(rows)] = tensor.data[: len(rows), 0]
        return [index.reshape(features.shape[:2]), score.reshape(features.shape[:2])]


def read_graph(core: Any, model: ModelDir) -> Any:
    """The graph of a model folder; that of a det model simplified.

    Raises:
        ConfigError: OpenVINO cannot read it.
    """
    graph = openvino_package.read_model(core, model.model_file, model.params_file)
    if DET_LOGITS in model.derived:
        openvino_graph.simplify_det(graph)
    return graph


class OpenVINOEngine:
    """See engine.base.Engine.

    A model is compiled once for each form it is asked for: (uint8 or float32 input) x (graph outputs or derived ones).
    The uint8 form normalises inside the graph. The derived form of a det model ends before its sigmoid; that of a rec
    model ends in its best classes. In bf16 it is cut before the class matrix, and a second graph goes on from there, so
    the probabilities of all classes never leave the processor's cache.
    """

    name = "openvino"

    def __init__(self, model: ModelDir, options: EngineOptions) -> None:
        openvino = openvino_package.load()
        self._ov = openvino
        self._core = openvino.Core()
        # OpenVINO fills its tables of array types on first use, and two threads that do so at once deadlock on the GIL.
        openvino.Tensor(np.zeros(1, np.float32)).get_element_type().to_dtype()
        self._model = model
        self._normalization = model.normalization
        self._options = options
        self._floats = self._choose_precision(options.precision)
        self.precision = self._floats
        self._graph = read_graph(self._core, model)
        self.inputs = tuple(port.get_any_name() for port in self._graph.inputs)
        self.outputs = tuple(port.get_any_name() for port in self._graph.outputs)
        shape = self._graph.output(0).partial_shape
        fixed = shape.rank.is_static and len(shape) > 0 and shape[-1].is_static
        self.classes = int(shape[-1].get_length()) if fixed else None
        self._use_bytes()
        self._lock = threading.Lock()
        self._forms: dict[tuple[bool, bool], SessionPool[_Session]] = {}

    def run(self, feed: Mapping[str, Array], fetch: Sequence[str], deadline: Deadline | None) -> dict[str, Array]:
        """See engine.base.Engine.run."""
        image = self._normalization is not None and all(is_image(array) for array in feed.values())
        derived = bool(fetch) and all(name in DERIVED for name in fetch)
        arrays = [np.ascontiguousarray(feed[name]) for name in self.inputs]
        form = image, derived
        pool = self._pool(form)
        with pool.borrow(deadline) as session:
            try:
                found = session.run(arrays)
            except RuntimeError as error:
                self._forget(form, pool)
                raise EngineFailed("The engine refused this input: its shape does not fit the model.") from error
        names = self._model.derived if derived else self.outputs
        return pick(self._model, dict(zip(names, found, strict=True)), fetch)

    def _forget(self, form: tuple[bool, bool], pool: SessionPool[_Session]) -> None:
        """Compile a form anew before its next run.

        Where sizes clashed half way through a graph, as det's did, it may fail from then on with inputs that it took
        before. Rec's graph does not, and stays: compiling it takes half a second, for which all others wait.
        """
        with self._lock:
            if CTC_INDEX not in self._model.derived and self._forms.get(form) is pool:
                del self._forms[form]

    def _pool(self, form: tuple[bool, bool]) -> SessionPool[_Session]:
        with self._lock:
            if form not in self._forms:
                make = self._compile(*form)
                self._forms[form] = SessionPool(make, self._options.sessions)
            return self._forms[form]

    def _compile(self, image: bool, derived: bool) -> Callable[[], _Session]:
        graph = self._graph.clone()
        head = None
        if derived and DET_LOGITS in self._model.derived:
            openvino_graph.cut_sigmoid(graph)
        elif derived and self.precision == "bf16":
            head = self._compiled(openvino_graph.cut_ctc_head(graph, _HEAD_ROWS))
        elif derived:
            openvino_graph.end_in_best_classes(graph)
        if image:
            graph = self._with_image_input(graph)
        compiled = self._compiled(graph)
        return lambda: _Session(compiled.create_infer_request(), head.create_infer_request() if head else None)

    def _compiled(self, graph: Any) -> Any:
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": self._options.threads,
            "NUM_STREAMS": self._options.sessions,
            "INFERENCE_PRECISION_HINT": self._floats,  # of what is not in 8 bits
            "ENABLE_CPU_PINNING": False,  # det and rec processes share the cores; pinned threads would pile up on some
        }
        if DET_LOGITS in self._model.derived:
            properties["CPU_RUNTIME_CACHE_CAPACITY"] = _DET_PRIMITIVES
        return self._core.compile_model(graph, "CPU", properties)

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

    def _use_bytes(self) -> None:
        """Let what int8.json names run in 8 bits, as far as that is wanted and faster."""
        is_bf16 = self._floats == "bf16"
        if self._options.precision != "auto" or platform.machine() not in _INT8_MACHINES or (is_bf16 and has_amx()):
            return
        layers = int8_layers.read(self._model)
        if not openvino_int8.fit(self._graph, layers):
            int8_layers.warn_unused(self._model)
            return
        if is_bf16:
            layers = tuple(layer for layer in layers if len(layer.scale) * len(layer.error) >= _LEAST_PRODUCTS)
        if layers:
            openvino_int8.quantize(self._graph, layers, is_bf16)
            self.precision = "int8"

    def _choose_precision(self, wanted: str) -> str:
        has_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if wanted == "auto":
            return "bf16" if has_bf16 else "f32"
        if wanted == "bf16" and not has_bf16:
            raise ConfigError("This CPU does not compute in bf16; take precision auto or f32.")
        if wanted not in ("f32", "bf16"):
            raise ConfigError(f"OpenVINO on CPU takes precision auto, f32 or bf16, not {wanted}.")
        return wanted
