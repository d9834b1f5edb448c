"""What the web services compute: image files in, the value of "result" out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detector
from ocr_serving.errors import BadInput, BadUpstream, EngineFailed, LimitExceeded, OcrServingError
from ocr_serving.geometry import Image, Quads
from ocr_serving.model_dir import ORIGINAL_OUTPUT
from ocr_serving.pipeline import Page, Pipeline
from ocr_serving.recognition import Recognizer
from ocr_serving.timings import Timings

DEFAULT_NAMES = ("res", ORIGINAL_OUTPUT)
"""Fetch names that mean a service's default outputs; the second is what the original's own clients send."""

ITEM_ERRORS = (BadInput, EngineFailed, BadUpstream)
"""Errors of one image, which say nothing about the others of its request."""

Outputs = dict[str, Any]
_Found = TypeVar("_Found")


class Source(Protocol):
    """One image of a request."""

    @property
    def pixels(self) -> int:
        """How many its file's header tells of; 0 if none."""
        ...

    def __call__(self) -> Image:
        """Decode it, uint8 (h, w, 3) BGR; called once. Raises BadInput."""
        ...


class Service(Protocol):
    """One web service. Thread-safe.

    Attributes:
        defaults: the outputs that are always answered.
        extras: the outputs answered when fetched by name.
        merges: whether several images are answered with one object, not with a list of one each.
    """

    defaults: tuple[str, ...]
    extras: tuple[str, ...]
    merges: bool

    def answer(
        self,
        sources: Sequence[Source],
        outputs: Sequence[str],
        deadline: Deadline | None = None,
        timings: Timings | None = None,
    ) -> Outputs | list[Outputs]:
        """The value of "result". An image that fails does so alone; see each service for where its error stands.

        Args:
            sources: the images, at least one; decoded when their turn comes.
            outputs: names out of `defaults` and `extras`.
            deadline: when to give up.
            timings: is told how long the stages took.

        Raises:
            The predictors' errors; one of ITEM_ERRORS only if all images fail.
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
    merges = False

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def answer(
        self,
        sources: Sequence[Source],
        outputs: Sequence[str],
        deadline: Deadline | None = None,
        timings: Timings | None = None,
    ) -> Outputs | list[Outputs]:
        """See Service.answer: {"res": [text, ...]} for one image, a list of such objects for several.

        Boxes on which the rec model failed are named in "errors", with their "box".
        """
        timings = timings or Timings()

        def read(source: Source) -> Outputs:
            with timings.stage("decode"):
                image = source()
            return _page(self._pipeline.run(image, deadline, timings), outputs)

        return _one_or_list(_each(sources, read, deadline))


class DetService:
    """Text boxes of pages."""

    defaults: tuple[str, ...] = ("dt_boxes",)
    extras: tuple[str, ...] = ("scores",)
    merges = False

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def answer(
        self,
        sources: Sequence[Source],
        outputs: Sequence[str],
        deadline: Deadline | None = None,
        timings: Timings | None = None,
    ) -> Outputs | list[Outputs]:
        """See Service.answer: {"dt_boxes": [[[x, y] * 4], ...]} for one image, a list of such objects for several."""
        timings = timings or Timings()

        def find(source: Source) -> Outputs:
            with timings.stage("decode"):
                image = source()
            with timings.stage("det"):
                found = self._detector.detect(image, deadline)
            return _only({"dt_boxes": _boxes(found.quads), "scores": _scores(found.scores)}, outputs)

        return _one_or_list(_each(sources, find, deadline))


class RecService:
    """The text of images that hold one line each."""

    defaults: tuple[str, ...] = ("res",)
    extras: tuple[str, ...] = ("scores",)
    merges = True

    def __init__(self, recognizer: Recognizer, max_pixels: int) -> None:
        """
        Args:
            recognizer: reads the lines.
            max_pixels: most pixels of all images in a request, which are in memory together.
        """
        self._recognizer = recognizer
        self._max_pixels = max_pixels

    def answer(
        self,
        sources: Sequence[Source],
        outputs: Sequence[str],
        deadline: Deadline | None = None,
        timings: Timings | None = None,
    ) -> Outputs:
        """See Service.answer: {"res": [text, ...]}, one text an image, empty where none is read.

        Images that failed have the text "" and the score 0, and stand in "errors" with their "index".
        """
        timings = timings or Timings()
        with timings.stage("decode"):
            images = self._decode(sources, deadline)
        with timings.stage("rec"):
            good = [image for image in images if not isinstance(image, OcrServingError)]
            lines = iter(self._recognizer.recognize(good, deadline))
        texts, scores, errors = [], [], []
        for index, image in enumerate(images):
            line = None if isinstance(image, OcrServingError) else next(lines)
            error = image if line is None else line.error
            if isinstance(error, OcrServingError):
                errors.append({"index": index, **_fault(error)})
            texts.append(line.text if line else "")
            scores.append(_rounded(line.score) if line else 0.0)
        return _only({"res": texts, "scores": scores}, outputs) | ({"errors": errors} if errors else {})

    def _decode(self, sources: Sequence[Source], deadline: Deadline | None) -> list[Image | OcrServingError]:
        room = self._max_pixels

        def decode(source: Source) -> Image:
            nonlocal room
            if room < source.pixels <= self._max_pixels:
                room = 0  # what comes after it fails, too
                raise LimitExceeded(
                    f"Up to this image the request has more than {self._max_pixels} pixels, the limit (max_pixels)."
                )
            image = source()
            room -= image.shape[0] * image.shape[1]
            return image

        return _each(sources, decode, deadline)


def _each(
    sources: Sequence[Source], work: Callable[[Source], _Found], deadline: Deadline | None
) -> list[_Found | OcrServingError]:
    """What the work makes of each image, or the error that it alone has.

    Raises:
        The first error, if all images have one. Errors of other kinds than ITEM_ERRORS at once.
    """
    found: list[_Found | OcrServingError] = []
    for source in sources:
        if deadline is not None:
            deadline.check("before all of its images were read")
        try:
            found.append(work(source))
        except ITEM_ERRORS as error:
            error.__cause__ = error.__context__ = None
            found.append(error.with_traceback(None))  # traces hold what was being worked on: the image
    if all(isinstance(item, OcrServingError) for item in found) and isinstance(found[0], OcrServingError):
        raise found[0]
    return found


def _one_or_list(pages: Sequence[Outputs | OcrServingError]) -> Outputs | list[Outputs]:
    """The original's form for one image; it passed over all but the first, we answer each."""
    found = [{"error": _fault(page)} if isinstance(page, OcrServingError) else page for page in pages]
    return found[0] if len(found) == 1 else found


def _page(page: Page, outputs: Sequence[str]) -> Outputs:
    found = {"res": list(page.texts), "dt_boxes": _boxes(page.quads), "scores": _scores(page.scores)}
    errors = [{"box": _boxes(unread.quad), **_fault(unread.error)} for unread in page.unread]
    return _only(found, outputs) | ({"errors": errors} if errors else {})


def _only(found: Outputs, outputs: Sequence[str]) -> Outputs:
    return {name: found[name] for name in outputs}


def _fault(error: OcrServingError) -> dict[str, str]:
    return {"code": error.code, "message": str(error)}


def _boxes(quads: Quads) -> list[Any]:
    """Nested lists [n][4][2] of pixels, to a thousandth."""
    boxes: list[Any] = np.round(quads.astype(np.float64), 3).tolist()
    return boxes


def _scores(scores: NDArray[np.float32]) -> list[float]:
    return [_rounded(score) for score in scores]


def _rounded(score: float) -> float:
    """A float32 has six reliable decimals below 1."""
    return round(float(score), 6)
