"""What the web services compute: images in, the value of "result" out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detector
from ocr_serving.errors import BadInput
from ocr_serving.geometry import Image, Quads
from ocr_serving.pipeline import Pipeline
from ocr_serving.recognition import Recognizer

DEFAULT_NAMES = ("res", "save_infer_model/scale_0.tmp_1")
"""Fetch names that mean a service's default outputs; the second is what the original's own clients send."""

Outputs = dict[str, list[Any]]


class Service(Protocol):
    """One web service. Thread-safe.

    Attributes:
        defaults: the outputs that are always answered.
        extras: the outputs answered when fetched by name.
    """

    defaults: tuple[str, ...]
    extras: tuple[str, ...]

    def answer(
        self, images: Sequence[Image], outputs: Sequence[str], deadline: Deadline | None
    ) -> Outputs | list[Outputs]:
        """The value of "result".

        Args:
            images: at least one, uint8 (h, w, 3) BGR.
            outputs: names out of `defaults` and `extras`.
            deadline: when to give up.

        Raises:
            The predictors' errors.
        """
        ...


def wanted_outputs(service: Service, fetch: Sequence[str]) -> list[str]:
    """The outputs that a request's "fetch" asks of a service: its defaults, and what is named besides.

    Raises:
        BadInput: an unknown name.
    """
    known = (*DEFAULT_NAMES, *service.defaults, *service.extras)
    for name in fetch:
        if name not in known:
            raise BadInput(f'"fetch" holds an unknown name; this service knows: {", ".join(dict.fromkeys(known))}.')
    return [*service.defaults, *(name for name in service.extras if name in fetch)]


class OcrService:
    """Text lines of pages."""

    defaults: tuple[str, ...] = ("res",)
    extras: tuple[str, ...] = ("dt_boxes", "scores")

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def answer(
        self, images: Sequence[Image], outputs: Sequence[str], deadline: Deadline | None
    ) -> Outputs | list[Outputs]:
        """See Service.answer: {"res": [text, ...]} for one image, a list of such objects for several."""
        pages = []
        for image in images:
            page = self._pipeline.run(image, deadline)
            pages.append({"res": list(page.texts), "dt_boxes": _boxes(page.quads), "scores": _scores(page.scores)})
        return _one_or_list(pages, outputs)


class DetService:
    """Text boxes of pages."""

    defaults: tuple[str, ...] = ("dt_boxes",)
    extras: tuple[str, ...] = ("scores",)

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def answer(
        self, images: Sequence[Image], outputs: Sequence[str], deadline: Deadline | None
    ) -> Outputs | list[Outputs]:
        """See Service.answer: {"dt_boxes": [[[x, y] * 4], ...]} for one image, a list of such objects for several."""
        pages = []
        for image in images:
            found = self._detector.detect(image, deadline)
            pages.append({"dt_boxes": _boxes(found.quads), "scores": _scores(found.scores)})
        return _one_or_list(pages, outputs)


class RecService:
    """The text of images that hold one line each."""

    defaults: tuple[str, ...] = ("res",)
    extras: tuple[str, ...] = ("scores",)

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer

    def answer(
        self, images: Sequence[Image], outputs: Sequence[str], deadline: Deadline | None
    ) -> Outputs | list[Outputs]:
        """See Service.answer: {"res": [text, ...]}, one text an image, empty where none is read."""
        lines = self._recognizer.recognize(images, deadline)
        found: Outputs = {"res": [line.text for line in lines], "scores": [_rounded(line.score) for line in lines]}
        return _only(found, outputs)


def _one_or_list(pages: list[Outputs], outputs: Sequence[str]) -> Outputs | list[Outputs]:
    """The original's form for one image; it passed over all but the first, we answer each."""
    found = [_only(page, outputs) for page in pages]
    return found[0] if len(found) == 1 else found


def _only(found: Outputs, outputs: Sequence[str]) -> Outputs:
    return {name: found[name] for name in outputs}


def _boxes(quads: Quads) -> list[Any]:
    """Nested lists [n][4][2] of pixels, to a thousandth."""
    boxes: list[Any] = np.round(quads.astype(np.float64), 3).tolist()
    return boxes


def _scores(scores: NDArray[np.float32]) -> list[float]:
    return [_rounded(score) for score in scores]


def _rounded(score: float) -> float:
    """A float32 has six reliable decimals below 1."""
    return round(float(score), 6)
