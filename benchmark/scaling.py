"""How the cost of a page grows: with its lines, its pixels, the requests at once, the cores and the models.

    .venv/bin/python benchmark/scaling.py

Our in-process pipeline on drawn pages, from the bytes of a JPEG file to the texts; medians, one series after the other.

The words under a table go part by part. Two points in a row belong to one part as long as the local exponent,
log(ratio of times) / log(ratio of sizes), rounds to the same half: 0 is hardly any growth, 1 is growth in proportion.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness import ours, pages, result
from harness.lines import Read
from harness.measure import median_time, milliseconds, number
from harness.peer import PeerProcess
from harness.plot import log_x, log_y
from harness.result import Result
from harness.services import Models

from ocr_serving.geometry import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 50.0)
CONCURRENCY = (1, 2, 4, 8, 16)
FAMILIES = ("ppocrv6_tiny", "ppocrv4_mobile", "ppocrv5_mobile", "ppocrv6_small")
PACES = {0: "hardly changes", 1: "grows more slowly than they do", 2: "grows about in proportion"}
"""Exponent in halves -> words."""
USUAL_LINES = 40
"""On a page whose lines are not what varies."""


class Run:
    """What every series needs: the models, the repeats, how many points a series may have."""

    def __init__(self, models: Models, families: Sequence[str], repeat: int, limit: int | None) -> None:
        self.models = models
        self.families = families[:limit]
        self.repeat = repeat
        self.limit = limit

    def lines(self) -> Result:
        """Cost against the lines on a page."""
        with ours.reader(self.models) as read:
            points = [self._point(read, n, pages.page(n)) for n in LINES[: self.limit]]
        return _series("lines", points)

    def pixels(self) -> Result:
        """Cost against the size of one page with the same text."""
        sheet = pages.page(USUAL_LINES)
        with ours.reader(self.models) as read:
            points = [self._point(read, size, pages.resized(sheet, size)) for size in MEGAPIXELS[: self.limit]]
        return _series("megapixels", points)

    def concurrency(self) -> Result:
        """Latency and throughput against pages read at once in one process."""
        data = pages.jpeg(pages.page(USUAL_LINES))
        with ours.reader(self.models) as read:
            read(data)
            points = [_at_once(read, data, n, self.repeat) for n in CONCURRENCY[: self.limit]]
        return _series("requests at once", points)

    def cores(self) -> Result:
        """Cost against the cores that the process may use."""
        available = len(os.sched_getaffinity(0))
        counts = sorted({min(2**i, available) for i in range(available.bit_length() + 1)})
        points = []
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "page.jpg"
            file.write_bytes(pages.jpeg(pages.page(USUAL_LINES)))
            for n in counts[: self.limit]:
                with PeerProcess(sys.executable, "worker_ours.py", [self.models.family, str(n)]) as worker:
                    seconds = [worker.read(file).seconds for _ in range(1 + self.repeat)][1:]
                points.append({"x": n, "ms": milliseconds(median(seconds))})
        return _series("cores", points)

    def model_size(self) -> Result:
        """Cost against the size of the models on disk."""
        data = pages.jpeg(pages.page(USUAL_LINES))
        points = []
        for models in map(Models.fetch, self.families):
            with ours.reader(models) as read:
                ms = milliseconds(median_time(lambda read=read: read(data), self.repeat))  # type: ignore[misc]
            points.append({"x": models.megabytes, "ms": ms, "family": models.family})
        return _series("megabytes of models", points)

    def _point(self, read: Read, x: float, sheet: Image) -> Result:
        data = pages.jpeg(sheet)
        return {"x": x, "ms": milliseconds(median_time(lambda: read(data), self.repeat)), "found": len(read(data))}


def _at_once(read: Read, data: bytes, n: int, repeat: int) -> Result:
    """n threads that each read the page 1 + repeat times."""

    def run(_: int) -> list[float]:
        times = []
        for _ in range(1 + repeat):
            begin = time.perf_counter()
            read(data)
            times.append(time.perf_counter() - begin)
        return times

    with ThreadPoolExecutor(n) as pool:
        begin = time.perf_counter()
        times = [seconds for each in pool.map(run, range(n)) for seconds in each]
        wall = time.perf_counter() - begin
    return {"x": n, "ms": milliseconds(median(times)), "images_per_s": round(len(times) / wall, 3)}


def _series(x: str, points: Sequence[Result]) -> Result:
    return {"x": x, "points": list(points)}


SERIES: dict[str, Callable[[Run], Result]] = {
    "lines": Run.lines,
    "pixels": Run.pixels,
    "concurrency": Run.concurrency,
    "cores": Run.cores,
    "models": Run.model_size,
}


def markdown(data: Result) -> str:
    """A table of each series, and how it grows."""
    parts = []
    for series in data.values():
        columns = [column for column in series["points"][0] if column != "x"]
        rows: Iterable[list[object]] = ([p["x"], *(p[column] for column in columns)] for p in series["points"])
        parts.append(result.table([series["x"], *(column.replace("_per_", "/") for column in columns)], rows))
        if len(series["points"]) > 1 and _is_one_thing(series):
            parts.append(_words(series) + "\n")
    return "\n".join(parts)


def _is_one_thing(series: Result) -> bool:
    """Whether only the size varies: models of several families are different networks."""
    return "family" not in series["points"][0]


def _words(series: Result) -> str:
    """How the time of a series grows, part by part."""
    parts = []
    for pace, group in groupby(pairwise(series["points"]), lambda pair: _pace(*pair)):
        steps = list(group)
        first, last = steps[0][0], steps[-1][1]
        more, cost = (number(last[key] / first[key]) for key in ("x", "ms"))
        how = PACES.get(pace, "grows faster than they do" if pace > 0 else "falls")
        named = series["x"]
        parts.append(
            f"from {first['x']:g} to {last['x']:g} {named} it {how}, {cost} times for {more} times the {named}"
        )
    return f"The time: {'; '.join(parts)}."


def _pace(before: Result, after: Result) -> int:
    """The exponent of x between two points, in halves."""
    return round(2 * math.log(after["ms"] / before["ms"]) / math.log(after["x"] / before["x"]))


def figures(data: Result) -> dict[str, Figure]:
    """Cost against what varies in each series, both axes logarithmic."""
    from matplotlib.figure import Figure

    shown = [series for series in data.values() if len(series["points"]) > 1]
    if not shown:
        return {}
    figure = Figure(figsize=(3 * len(shown), 2.8), layout="constrained")
    for axes, series in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        x, ms = zip(*((point["x"], point["ms"]) for point in series["points"]), strict=True)
        axes.plot(x, ms, "o-" if _is_one_thing(series) else "o")
        log_x(axes, x)
        log_y(axes)
        axes.set(xlabel=series["x"], ylabel="ms")
    return {"scaling": figure}


def main() -> None:
    """Measure, write the result file, print the tables."""
    parser = result.parser(__doc__ or "", "scaling", images=False)
    parser.add_argument("--limit", type=int, help="most points of a series")
    parser.add_argument("--series", nargs="+", choices=SERIES, default=list(SERIES), metavar="NAME")
    parser.add_argument("--families", nargs="+", default=FAMILIES, metavar="NAME", help="of the zoo, for model size")
    parser.add_argument("--models", default="ppocrv6_small", help="family of the zoo's models (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="runs of which the median is taken")
    args = parser.parse_args()
    run = Run(Models.fetch(args.models), args.families, args.repeat, args.limit)
    result.finish(args, {name: SERIES[name](run) for name in args.series}, markdown)


if __name__ == "__main__":
    main()
