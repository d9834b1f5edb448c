"""Det and rec alone, each engine and precision, against the floor: the engine's time at ideal shapes.

    .venv/bin/python benchmark/engines.py --images imgs

The floor of a page is det at its input's size and each of its lines alone: at the width that it is read at, in the
batch that is best for that width, all cores at work and every shape warmed up. What the pipeline adds to it comes from
lines read twice, from batches that are not the best and from cores that wait. Pages, det alone and lines alone take
turns, so that whatever else the machine does meets all alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from statistics import fmean, median
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from harness import images, ours, result, turns
from harness.measure import milliseconds
from harness.result import Result
from harness.services import Models
from harness.staged import StagedPipeline, staged

from ocr_serving import recognition
from ocr_serving.cores import usable_cores
from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detector
from ocr_serving.errors import OcrServingError
from ocr_serving.geometry import Image, crops
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE, DET_LOGITS, INPUT
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAMILIES = ("ppocrv6_small", "ppocrv4_mobile")
"""One in ONNX, one in Paddle's format: no engine but OpenVINO reads both."""
ENGINES = ("auto-auto", "openvino-bf16", "openvino-f32", "onnxruntime-f32", "paddle-f32", "paddle-bf16")
BATCHES = (1, 2, 4, 8)
STEP = 8
"""Pixels of width that make one time step of a rec model: widths between its multiples cost the same."""
MOST_WIDTHS = 8
"""So many are measured; the cost of those between is interpolated."""

Job = TypeVar("Job")


class Recorder(Predictor):
    """Passes calls on to a predictor and keeps what it is fed. See predictor.base.Predictor."""

    def __init__(self, inner: Predictor) -> None:
        self._inner = inner
        self.feeds: list[Mapping[str, Array]] = []

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict."""
        self.feeds.append(feed)
        return self._inner.predict(feed, fetch, deadline)

    def close(self) -> None:
        """See predictor.base.Predictor.close."""
        self._inner.close()


class Pair:
    """A det and a rec predictor of one engine and precision."""

    def __init__(self, models: Models, det: LocalPredictor, rec: LocalPredictor, chosen: Settings, repeat: int) -> None:
        self._models = models
        self._det = det
        self._rec = rec
        self._height = rec.model.image_height or 0
        self._settings = chosen
        self._repeat = repeat

    def measure(self, pictures: Sequence[Image]) -> Result:
        """Engine times in milliseconds, means over the images; pages, det and lines take turns."""
        widths, looks = [], []
        for picture in pictures:
            det = Recorder(self._det)
            widths.append(self._widths(picture, det))
            looks.append(det.feeds)
        lines = measured_widths([width for page in widths for width in page])
        with (
            staged(self._det, self._rec, self._models, self._settings) as pipeline,
            ThreadPoolExecutor(usable_cores()) as pool,
        ):
            jobs: dict[tuple[str, int, int], Callable[[], float]] = {}
            for i, (picture, feeds) in enumerate(zip(pictures, looks, strict=True)):
                jobs["page", i, 1] = partial(page_seconds, pipeline, picture)
                jobs["det", i, 1] = partial(det_seconds, self._det, feeds)
            for width, batch in product(lines, BATCHES):
                jobs["rec", width, batch] = partial(line_seconds, self._rec, pool, (batch, self._height, width))
            found = in_turns(jobs, self._repeat)
        page, looked = (fmean(found[name, i, 1] for i in range(len(pictures))) for name in ("page", "det"))
        cost = [min(found["rec", width, batch] for batch in BATCHES) for width in lines]
        rec = fmean(sum(np.interp([step(width) for width in page], lines, cost)) for page in widths)
        return {
            "lines": round(fmean(map(len, widths)), 1),
            "det_ms": milliseconds(looked),
            "rec_floor_ms": milliseconds(rec),
            "page_ms": milliseconds(page),
            "floor_ms": milliseconds(looked + rec),
        }

    def _widths(self, picture: Image, det: Predictor) -> list[int]:
        """The width at which each line of a page is read."""
        lines = crops(picture, Detector(det, self._settings).detect(picture).quads, self._height)
        exponent = self._settings.rec_squeeze
        return [recognition.input_width(line.shape[1], line.shape[0], self._height, exponent) for line in lines]


def in_turns(jobs: Mapping[Job, Callable[[], float]], repeat: int) -> dict[Job, float]:
    """Median seconds of each job, done in turn `repeat` times, after one time that does not count."""
    times: dict[Job, list[float]] = {name: [] for name in jobs}
    for _ in range(1 + repeat):
        for name, run in jobs.items():
            time.sleep(turns.PAUSE_SECONDS)
            times[name].append(run())
    return {name: median(found[1:]) for name, found in times.items()}


def page_seconds(pipeline: StagedPipeline, picture: Image) -> float:
    """Seconds that a page in the pipeline is with the engine."""
    stages = pipeline.run(picture)
    return stages["det_infer"] + stages["rec_infer"]


def det_seconds(det: Predictor, feeds: Sequence[Mapping[str, Array]]) -> float:
    """Seconds that all looks at a page take, one after the other."""
    return sum(seconds(det, feed, [DET_LOGITS]) for feed in feeds)


def line_seconds(rec: Predictor, pool: ThreadPoolExecutor, shape: tuple[int, int, int]) -> float:
    """Seconds a line in batches (lines, height, width), one on every core, none of which waits for another."""
    lines = {INPUT: np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)}
    cores = usable_cores()
    return fmean(pool.map(lambda _: seconds(rec, lines, [CTC_INDEX, CTC_SCORE]), range(cores))) / (shape[0] * cores)


def seconds(predictor: Predictor, feed: Mapping[str, Array], fetch: Sequence[str]) -> float:
    """That a call takes."""
    begin = time.perf_counter()
    predictor.predict(feed, fetch)
    return time.perf_counter() - begin


def measured_widths(widths: Sequence[int]) -> list[int]:
    """MOST_WIDTHS or fewer that stand for all."""
    steps = sorted({step(width) for width in widths})
    if len(steps) > MOST_WIDTHS:
        steps = [steps[i] for i in np.linspace(0, len(steps) - 1, MOST_WIDTHS).astype(int)]
    return steps


def step(width: int) -> int:
    """A width that costs the same, rounded downwards as a floor should be."""
    return max(STEP, width // STEP * STEP)


def measure(sets: Sequence[images.ImageSet], families: Sequence[str], engines: Sequence[str], repeat: int) -> Result:
    """Family -> a row for each engine and precision."""
    files = [picture.file for image_set in sets for picture in image_set.images]
    pictures = [ours.decode(file.read_bytes()) for file in files]
    return {
        "images": len(pictures),
        "families": {
            family: [_row(Models.fetch(family), name, pictures, repeat) for name in engines] for family in families
        },
    }


def _row(models: Models, name: str, pictures: Sequence[Image], repeat: int) -> Result:
    """The figures of one of ENGINES, or that it is unavailable."""
    engine, _, precision = name.partition("-")
    chosen = ours.choose(models, engine=engine, precision=precision)
    row: Result = {"engine": engine, "precision": precision}
    begin = time.perf_counter()
    try:
        with ours.local_predictors(models, chosen) as (det, rec):
            if engine == "auto":
                row["precision"] = " and ".join(f"{p.engine.name} {p.engine.precision}" for p in (det, rec))
            row |= Pair(models, det, rec, chosen, repeat).measure(pictures)
    except OcrServingError as error:
        print(f"{models.family}, {engine} {precision}: {error}", file=sys.stderr)
        return row | {"unavailable": True}
    print(f"{models.family}, {engine} {precision}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return row


def markdown(data: Result) -> str:
    """One table a family."""
    columns = ("lines", "det_ms", "rec_floor_ms", "page_ms", "floor_ms")
    names = ("lines a page", "det", "rec floor", "page", "page floor", "page / floor")
    parts = []
    for family, rows in data["families"].items():
        head = [f"{family}, ms, mean of {data['images']} images", *names]
        found = [row for row in rows if "unavailable" not in row]
        cells = [[_name(row), *(row[c] for c in columns), row["page_ms"] / row["floor_ms"]] for row in found]
        parts.append(result.table(head, cells))
        if missing := [_name(row) for row in rows if "unavailable" in row]:
            parts.append(f"Not installed, or not for this model or processor: {', '.join(missing)}.\n")
    return "\n".join(parts)


def _name(row: Result) -> str:
    return f"{row['engine']} {row['precision']}"


def figures(data: Result) -> dict[str, Figure]:
    """Engine time of a page, and its floor."""
    from matplotlib.figure import Figure

    rows = [
        (f"{family} {_name(row)}", row)
        for family, rows in data["families"].items()
        for row in rows
        if "unavailable" not in row
    ]
    figure = Figure(figsize=(8, 0.6 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [name for name, _ in rows]
    axes.barh(names, [row["page_ms"] for _, row in rows], color="lightsteelblue", label="page")
    axes.barh(names, [row["floor_ms"] for _, row in rows], height=0.35, color="steelblue", label="floor")
    axes.set_xlabel("ms")
    axes.invert_yaxis()
    axes.legend(fontsize="x-small")
    return {"engines": figure}


def main() -> None:
    """Measure, write the result file, print the tables."""
    parser = result.parser(__doc__ or "", "engines")
    parser.add_argument("--families", nargs="+", default=FAMILIES, metavar="NAME", help="of the zoo's models")
    parser.add_argument(
        "--engines", nargs="+", choices=ENGINES, default=ENGINES, metavar="NAME", help=", ".join(ENGINES)
    )
    parser.add_argument("--repeat", type=int, default=5, help="runs of which the median is taken")
    args = parser.parse_args()
    sets = images.load(args.images, args.limit)
    result.finish(args, measure(sets, args.families, args.engines, args.repeat), markdown)


if __name__ == "__main__":
    main()
