"""What an inference engine is to the rest of the house."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving.deadline import Deadline, remaining
from ocr_serving.errors import DeadlineExceeded
from ocr_serving.logistic import logit
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE, DERIVED, DET_LOGITS, ModelDir, Normalization

Array = NDArray[Any]
Session = TypeVar("Session")


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs.

    Attributes:
        device: "cpu" or "gpu".
        gpu_id: which GPU.
        precision: "auto", "f32", "bf16" or "fp16".
        threads: CPU threads of one run, at least 1.
        sessions: runs that may go on at once, at least 1; they share the threads.
    """

    device: str
    gpu_id: int
    precision: str
    threads: int
    sessions: int


class Engine(Protocol):
    """A model loaded and ready to run, freed with its last reference. Thread-safe: a run waits for a free session until
    its deadline.

    Attributes:
        name, precision: what it is and computes in.
        inputs, outputs: names in the graph.
        classes: last dimension of the first output; None where the graph leaves it open or the engine does not tell.
    """

    name: str
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    classes: int | None

    def run(self, feed: Mapping[str, Array], fetch: Sequence[str], deadline: Deadline | None) -> dict[str, Array]:
        """Run the model on arrays.

        Args:
            feed: graph input -> array; a uint8 NHWC BGR array for an image input is normalised by the engine.
            fetch: graph outputs, or derived ones (model_dir.DERIVED).
            deadline: when waiting for a session is given up.

        Returns:
            output -> array of its own (no buffer of the engine is shared).

        Raises:
            EngineFailed: the engine refused the arrays or broke.
            DeadlineExceeded: no session came free in time.
        """
        ...


class SessionPool(Generic[Session]):
    """A fixed number of sessions, each used by one thread at a time; the most recently used one first."""

    def __init__(self, make: Callable[[], Session], size: int) -> None:
        self._free: queue.LifoQueue[Session] = queue.LifoQueue()
        for _ in range(size):
            self._free.put(make())

    @contextmanager
    def borrow(self, deadline: Deadline | None) -> Iterator[Session]:
        """A session for the length of the block.

        Raises:
            DeadlineExceeded: none came free in time; ClientLeft: nobody waits for the run any more.
        """
        try:
            session = self._free.get(timeout=remaining(deadline))
        except queue.Empty:
            raise DeadlineExceeded("The time for this request ran out while it waited for the engine.") from None
        try:
            if deadline is not None:
                deadline.check("while it waited for the engine")
            yield session
        finally:
            self._free.put(session)


def is_image(array: Array) -> bool:
    """Whether the array is the uint8 NHWC BGR form that the engine normalises."""
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3


def normalize(images: Array, how: Normalization) -> NDArray[np.float32]:
    """(n, h, w, 3) BGR, 0 to 255 -> float32 (n, 3, h, w).

    The order of operations is the original's (divide by 255, subtract the mean, divide by the std, each rounded to
    float32), so the result equals that of its Div, Normalize and Transpose ops.
    """
    values = images.astype(np.float32)
    values /= 1 / how.scale
    np.subtract(values, np.asarray(how.mean), out=values, casting="same_kind")
    np.divide(values, np.asarray(how.std), out=values, casting="same_kind")
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


class Normalizer:
    """Makes of an engine's input what its graph takes, for engines that do not normalise inside the graph."""

    def __init__(self, how: Normalization | None) -> None:
        """Compute what normalize() makes of each of the 256 values of each channel; None: there are no images."""
        self._table: NDArray[np.float32] | None = None
        if how is not None:
            every = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 1, 3)
            self._table = np.ascontiguousarray(normalize(every, how)[0].transpose(1, 2, 0))  # (256, 1, 3)

    def __call__(self, array: Array) -> Array:
        """C-contiguous: normalize() of uint8 images, by the table, in a tenth of its time; else the array as it is."""
        if self._table is None or not is_image(array):
            return np.ascontiguousarray(array)
        n, h, w, channels = array.shape
        found = cv2.LUT(array.reshape(n * h, w, channels), self._table)
        return np.ascontiguousarray(found.reshape(array.shape).transpose(0, 3, 1, 2))


def pick(model: ModelDir, found: Mapping[str, Array], fetch: Sequence[str]) -> dict[str, Array]:
    """What was asked for, in that order.

    Args:
        model: a det or rec model, where derived outputs are asked for.
        found: output -> array. Derived ones that it lacks are made of the first, which then is the graph's own.
        fetch: names of outputs.
    """
    outputs = dict(found)
    if any(name in DERIVED and name not in found for name in fetch):
        first = next(iter(found.values()))
        if DET_LOGITS in model.derived:
            outputs[DET_LOGITS] = logit(first)
        else:
            outputs[CTC_INDEX], outputs[CTC_SCORE] = ctc_best(first)
    return {name: outputs[name] for name in fetch}


def ctc_best(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The derived rec outputs: float32 (n, t, c) -> best class int32 (n, t) and its value float32 (n, t)."""
    index = probabilities.argmax(axis=-1)
    score = np.take_along_axis(probabilities, index[..., None], axis=-1)[..., 0]
    return index.astype(np.int32), score
