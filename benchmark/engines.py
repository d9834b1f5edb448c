"""Det and rec alone, each engine and precision, against the floor: the engine's time at ideal shapes.

    .venv/bin/python benchmark/engines.py --images imgs

The floor of a page is det at its input's size and each of its lines alone: at the width that it is read at, in the
batch that is best for that width, all cores at work and every shape warmed up. What the pipeline adds to it comes from
lines read twice, from batches that are not the best and from cores that wait.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
from harness import images, ours, result
from harness.measure import median_time, milliseconds
from harness.result import Result
from harness.services import Models
from harness.staged import staged

from ocr_serving import recognition
from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detector
from ocr_serving.errors import OcrServingError
from ocr_serving.geometry import Image, crops
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings, usable_cores

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


class Recorder:
    """Passes calls on to a predictor and keeps the last one. See predictor.base.Predictor."""

    def __init__(self, inner: Predictor) -> None:
        self._inner = inner
        self.feed: dict[str, Array] = {}
        self.fetch: tuple[str, ...] = ()

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict."""
        self.feed, self.fetch = dict(feed), tuple(fetch)
        return self._inner.predict(feed, fetch, deadline)

    def close(self) -> None:
        """See predictor.base.Predictor.close."""
        self._inner.close()

    def again(self, feed: Mapping[str, Array] | None = None) -> None:
        """The last call once more, or the like with another feed, which is not kept."""
        self._inner.predict(self.feed if feed is None else feed, self.fetch)


class Pair:
    """A det and a rec predictor of one engine and precision."""

    def __init__(self, models: Models, det: LocalPredictor, rec: LocalPredictor, chosen: Settings, repeat: int) -> None:
        self._models = models
        self._det = Recorder(det)
        self._rec = Recorder(rec)
        self._height = rec.model.image_height or 0
        self._settings = chosen
        self._repeat = repeat

    def measure(self, pictures: Sequence[Image]) -> Result:
        """Engine times in milliseconds, means over the images."""
        pages = [self._page(picture) for picture in pictures]
        widths = [self._widths(picture) for picture in pictures]
        det = fmean(self._det_seconds(picture) for picture in pictures)
        cost = LineCost(self._rec, self._repeat, [width for page in widths for width in page])
        floor = fmean(sum(map(cost.seconds, page)) for page in widths)
        return {
            "lines": round(fmean(map(len, widths)), 1),
            "det_ms": milliseconds(det),
            "rec_ms": milliseconds(fmean(page["rec_infer"] for page in pages)),
            "rec_floor_ms": milliseconds(floor),
            "page_ms": milliseconds(fmean(page["det_infer"] + page["rec_infer"] for page in pages)),
            "floor_ms": milliseconds(det + floor),
        }

    def _page(self, picture: Image) -> dict[str, float]:
        """Stage -> median seconds of a page in the pipeline."""
        with staged(self._det, self._rec, self._models, self._settings) as pipeline:
            runs = [pipeline.run(picture) for _ in range(1 + self._repeat)][1:]
        return {stage: median(run[stage] for run in runs) for stage in runs[0]}

    def _widths(self, picture: Image) -> list[int]:
        """The width at which each line of a page is read."""
        lines = crops(picture, Detector(self._det, self._settings).detect(picture).quads)
        exponent = self._settings.rec_squeeze
        return [recognition.input_width(line.shape[1], line.shape[0], self._height, exponent) for line in lines]

    def _det_seconds(self, picture: Image) -> float:
        Detector(self._det, self._settings).detect(picture)
        return median_time(self._det.again, self._repeat)


class LineCost:
    """What a line costs at least, by its width; asks a rec predictor that has been called before."""

    def __init__(self, rec: Recorder, repeat: int, widths: Sequence[int]) -> None:
        steps = sorted({self._rounded(width) for width in widths})
        if len(steps) > MOST_WIDTHS:
            steps = [steps[i] for i in np.linspace(0, len(steps) - 1, MOST_WIDTHS).astype(int)]
        self._widths = steps
        self._seconds = [min(line_seconds(rec, width, n, repeat) for n in BATCHES) for width in steps]

    def seconds(self, width: int) -> float:
        """Of a line so many pixels wide."""
        return float(np.interp(self._rounded(width), self._widths, self._seconds))

    @staticmethod
    def _rounded(width: int) -> int:
        """Downwards, as a floor should be."""
        return max(STEP, width // STEP * STEP)


def line_seconds(rec: Recorder, width: int, batch: int, repeat: int) -> float:
    """Seconds a line in batches of `batch`, one on every core."""
    ((name, last),) = rec.feed.items()
    lines = {name: np.random.default_rng(0).integers(0, 255, (batch, last.shape[1], width, 3), np.uint8)}
    workers = usable_cores()

    with ThreadPoolExecutor(workers) as pool:
        return median_time(lambda: list(pool.map(rec.again, [lines] * workers)), repeat) / (batch * workers)


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
    columns = ("lines", "det_ms", "rec_ms", "rec_floor_ms", "page_ms", "floor_ms")
    names = ("lines a page", "det", "rec in the pipeline", "rec floor", "page", "page floor", "page / floor")
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
