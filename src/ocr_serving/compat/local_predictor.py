"""LocalPredictor: a model folder run in this process, with the original's methods."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ocr_serving import settings
from ocr_serving.compat import feeds, numpy_bytes
from ocr_serving.deadline import Deadline
from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import Variable
from ocr_serving.predictor import local
from ocr_serving.predictor.base import Array, Arrays

logger = logging.getLogger(__name__)


class LocalPredictor:
    """A model folder, its engine in this process. Once loaded, thread-safe (the original was not)."""

    def __init__(self) -> None:
        self._predictor: local.LocalPredictor | None = None

    def load_model_config(
        self,
        model_path: str,
        use_gpu: bool = False,
        gpu_id: int | str = 0,
        use_profile: bool = False,
        thread_num: int | None = None,
        mem_optim: bool = True,
        ir_optim: bool = False,
        use_trt: bool = False,
        use_lite: bool = False,
        use_xpu: bool = False,
        precision: str | None = None,
        **others: Any,
    ) -> None:
        """Load a model folder; what is not said here comes from the settings (OCR_* variables).

        Args:
            model_path: the folder.
            use_gpu: run on a GPU.
            gpu_id: which one.
            thread_num: CPU threads; None takes the cores there are (the original took 1).
            precision: fp32, fp16 or bf16; None takes the fastest that reads as well (the original took fp32).
            mem_optim, ir_optim: the engines always optimise.
            use_profile, use_trt, use_lite, use_xpu, others: have no effect here.

        Raises:
            ConfigError: the folder, the engine or the device cannot be used (the original killed its process group).
        """
        numpy_bytes.restore_fromstring()
        asked = {"use_profile": use_profile, "use_trt": use_trt, "use_lite": use_lite, "use_xpu": use_xpu, **others}
        if ignored := [name for name, value in asked.items() if value]:
            logger.warning("load_model_config: %s: no effect here", ", ".join(ignored))
        chosen = settings.load(
            {
                "device": "gpu" if use_gpu else None,
                "gpu_id": gpu_id if use_gpu else None,
                "threads": thread_num,
                "precision": settings.precision_named(precision, logger.warning),
            }
        )
        self._predictor = local.LocalPredictor.load(model_path, chosen)

    def predict(
        self,
        feed: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        fetch: str | Sequence[str] | None = None,
        batch: bool = False,
        log_id: int = 0,
        deadline: Deadline | None = None,
    ) -> Arrays:
        """Run the model.

        Args:
            feed: alias of an input -> array, or list that fills the declared shape; stays as it is. It is cast to the
                type that the model folder declares, but for uint8 images (n, h, w, 3) in BGR, which the engine
                normalises itself. Other keys are passed over.
            fetch: aliases of outputs. Unknown ones are passed over; if all are unknown, they name the model's outputs
                in order. None takes all outputs of the model's own graph.
            batch: whether arrays have their batch dimension; otherwise one is put in front.
            log_id: has no effect here.
            deadline: when to give up.

        Returns:
            Name of an output -> array.

        Raises:
            BadCall: no feed, or a value that does not fill the declared shape or cannot become the declared type.
            BadInput: an input is missing, or an array is none that the model takes.
            ConfigError: no model is loaded.
            DeadlineExceeded, ClientLeft: the deadline says so.
            EngineFailed: the engine broke.
        """
        if self._predictor is None:
            raise ConfigError("load_model_config must be called before predict.")
        model = self._predictor.model
        given = feeds.as_mapping(feed, model.feeds)
        arrays = {v.alias: _array(given[v.alias], v, batch) for v in model.feeds if v.alias in given}
        names = [fetch] if isinstance(fetch, str) else list(fetch or ())
        known = [name for name in names if name in {variable.alias for variable in model.fetches}]
        found = self._predictor.predict(arrays, known, deadline)
        if names and not known:
            return dict(zip(names, found.values(), strict=False))
        return found


def _array(value: Any, variable: Variable, batch: bool) -> Array:
    if isinstance(value, list):
        value = feeds.fill(value, variable)
    return feeds.as_array(value, variable, batch)
