"""Our pipeline with each stage timed from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from harness import ours
from harness.services import Models
from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detection, Detector
from ocr_serving.geometry import Image
from ocr_serving.pipeline import Pipeline
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.settings import Settings

DET, REC, DETECT = "det", "rec", "detect"


@dataclass(frozen=True)
class Span:
    """One call: seconds of time.perf_counter()."""

    name: str
    begin: float
    end: float


class TimedPredictor(Predictor):
    """A predictor that notes when each call of another one begins and ends. See predictor.base.Predictor."""

    def __init__(self, name: str, inner: Predictor, spans: list[Span]) -> None:
        self._name = name
        self._inner = inner
        self._spans = spans

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict."""
        return self.predict_each([feed], fetch, deadline)[0]

    def predict_each(
        self, feeds: Sequence[Mapping[str, Array]], fetch: Sequence[str] = (), deadline: Deadline | None = None
    ) -> list[Arrays]:
        """See predictor.base.Predictor.predict_each."""
        begin = time.perf_counter()
        answers = self._inner.predict_each(feeds, fetch, deadline)
        self._spans.append(Span(self._name, begin, time.perf_counter()))
        return answers

    def close(self) -> None:
        """See predictor.base.Predictor.close."""
        self._inner.close()


class _TimedDetector(Detector):
    """Notes when detection is over, which the det predictor cannot know."""

    def __init__(self, predictor: Predictor, chosen: Settings, spans: list[Span]) -> None:
        super().__init__(predictor, chosen)
        self._spans = spans

    def detect(self, image: Image, deadline: Deadline | None = None) -> Detection:
        begin = time.perf_counter()
        found = super().detect(image, deadline)
        self._spans.append(Span(DETECT, begin, time.perf_counter()))
        return found


class StagedPipeline:
    """A pipeline that says how long each stage of a page took; one page at a time."""

    def __init__(self, pipeline: Pipeline, spans: list[Span]) -> None:
        self._pipeline = pipeline
        self._spans = spans

    def run(self, image: Image) -> dict[str, float]:
        """Stage -> seconds of an image, uint8 (h, w, 3) BGR; they add up to the time of the whole."""
        self._spans.clear()
        begin = time.perf_counter()
        self._pipeline.run(image)
        return stages(self._spans, begin, time.perf_counter())


def stages(spans: Sequence[Span], begin: float, end: float) -> dict[str, float]:
    """Stage -> seconds, of what was called from begin to end; they add up to the time between.

    A page may be detected twice, and each time det may look several times; batches of rec overlap: det_infer and
    rec_infer are the time during which at least one call is with the predictor.
    """
    det, detect, rec = ([span for span in spans if span.name == name] for name in (DET, DETECT, REC))
    looked = min(span.begin for span in det)
    detected = max(span.end for span in detect)
    read = min((span.begin for span in rec), default=end)
    det_infer, rec_infer = covered(det), covered(rec)
    return {
        "det_pre": looked - begin,
        "det_infer": det_infer,
        "det_post": detected - looked - det_infer,
        "rec_pre": read - detected,
        "rec_infer": rec_infer,
        "rec_post": end - read - rec_infer,
    }


def covered(spans: Sequence[Span]) -> float:
    """Seconds during which at least one of the spans runs."""
    total, reached = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.begin):
        total += max(0.0, span.end - max(span.begin, reached))
        reached = max(reached, span.end)
    return total


@contextmanager
def staged(det: Predictor, rec: Predictor, models: Models, chosen: Settings) -> Iterator[StagedPipeline]:
    """The pipeline on these predictors, which stay open."""
    spans: list[Span] = []
    detector = _TimedDetector(TimedPredictor(DET, det, spans), chosen, spans)
    with ours.pipeline(detector, TimedPredictor(REC, rec, spans), models, chosen) as recipe:
        yield StagedPipeline(recipe, spans)
