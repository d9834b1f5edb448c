"""Where the time of a request goes, stage by stage: the original's own table, for every service.

    .venv/bin/python benchmark/stages.py --images imgs

One client sends one image after the other, to each service in turn. The time of det and of rec is what the service says
in its Server-Timing header. How they divide into pre, infer and post is measured on the same pipeline put together in
this process, on the same model servers. So are all stages of a service without that header; the transfer to the server
is then what is left of the time to the first byte. The chained server's client tells both transfers as one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from harness import images, ours, result
from harness.images import ImageSet
from harness.measure import milliseconds
from harness.result import Result
from harness.services import SERVICES, Models, Running
from harness.staged import staged
from harness.web import Answer

from ocr_serving.predictor.base import Predictor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INFER = ("det_infer", "rec_infer")
TOLD = ("parse", "decode", "det", "crop", "rec", "total")
"""What is used of the service's own stages (ocr_serving.timings)."""
ROWS = {
    "client_read": "client read image",
    "upload": "client-server transfer",
    "decode": "server read image",
    "det_pre": "det pre",
    "det_infer": "det infer",
    "det_post": "det post",
    "rec_pre": "rec pre (crops included)",
    "rec_infer": "rec infer",
    "rec_post": "rec post",
    "download": "server-client transfer",
    "server": "server-side time",
    "overhead": "server-side overhead",
    "total": "total",
}
"""Stage -> its name in the original's table."""
DIFFERENCE = "difference"
"""Source of stages that the service does not tell."""

Stages = dict[str, float]


class Subject:
    """A service and what is needed to take its time apart.

    Attributes:
        source: how the time on the server is known.
    """

    def __init__(self, service: Running, models: Models, stack: ExitStack) -> None:
        self.source = DIFFERENCE
        self._client = stack.enter_context(closing(service.connect()))
        chosen = ours.choose(models)
        predictors: AbstractContextManager[tuple[Predictor, Predictor]] = ours.local_predictors(models, chosen)
        if service.det_endpoint:
            predictors = ours.remote_predictors(models, service)
        det, rec = stack.enter_context(predictors)
        self._reference = stack.enter_context(staged(det, rec, models, chosen))

    def measure(self, file: Path) -> Stages:
        """Stage -> seconds of one image, sent once."""
        begin = time.perf_counter()
        body = self._client.body(file)
        client_read = time.perf_counter() - begin
        answer = self._client.ask(body)
        stages = self._server(answer, file.read_bytes())
        return {
            **stages,
            "client_read": client_read,
            "upload": answer.first_byte - stages["server"],
            "download": answer.rest,
            "overhead": stages["server"] - sum(stages[stage] for stage in INFER),
            "total": client_read + answer.first_byte + answer.rest,
        }

    def _server(self, answer: Answer, data: bytes) -> Stages:
        """The stages on the server and their sum, "server"."""
        begin = time.perf_counter()
        picture = ours.decode(data)
        stages = {"decode": time.perf_counter() - begin, **self._reference.run(picture)}
        if not answer.server:
            return {**stages, "server": sum(stages.values())}
        self.source = "Server-Timing"
        told = {stage: answer.server.get(stage, 0.0) for stage in TOLD}
        return {
            **stages,
            "decode": told["parse"] + told["decode"],
            "det_infer": told["det"] - stages["det_pre"] - stages["det_post"],
            "rec_infer": told["crop"] + told["rec"] - stages["rec_pre"] - stages["rec_post"],
            "server": told["total"],
        }


def measure(sets: Sequence[ImageSet], models: Models, repeat: int) -> Result:
    """Set -> service -> stage -> mean over the images, of medians over the repeats, in milliseconds."""
    with ExitStack() as stack:
        subjects = {
            name: Subject(stack.enter_context(start(models)), models, stack) for name, start in SERVICES.items()
        }
        found = {
            image_set.name: {"images": len(image_set.images), "services": _services(image_set, subjects, repeat)}
            for image_set in sets
        }
    return {"sources": {name: subject.source for name, subject in subjects.items()}, "sets": found}


def _services(image_set: ImageSet, subjects: Mapping[str, Subject], repeat: int) -> dict[str, Stages]:
    """Service -> stage -> milliseconds."""
    found: dict[str, list[list[Stages]]] = {name: [] for name in subjects}
    for picture in image_set.images:
        turns = deque(subjects.items())
        for turn in range(1 + repeat):
            for name, subject in turns:
                stages = subject.measure(picture.file)
                if turn == 0:  # the warm-up
                    found[name].append([])
                else:
                    found[name][-1].append(stages)
            turns.rotate()  # so that each is the first in its turn
    return {name: _summary(runs) for name, runs in found.items()}


def _summary(images_: list[list[Stages]]) -> Stages:
    return {stage: milliseconds(mean(median(run[stage] for run in runs) for runs in images_)) for stage in ROWS}


def markdown(data: Result) -> str:
    """A table a set."""
    return "\n".join(_table(name, found, data["sources"]) for name, found in data["sets"].items())


def _table(set_name: str, found: Result, sources: Mapping[str, str]) -> str:
    """The table of one set, and what the services cost against each other."""
    services = found["services"]
    rows: list[list[object]] = [[title, *(s[stage] for s in services.values())] for stage, title in ROWS.items()]
    outside = [round(100 * (1 - sum(s[stage] for stage in INFER) / s["total"]), 1) for s in services.values()]
    rows.append(["outside det and rec inference, % of total", *outside])
    rows.append(["server's stages known by", *sources.values()])
    text = result.table([f"{set_name}, ms, mean of {found['images']} images", *services], rows)
    others = dict(services)
    if inside := others.pop("in-process", None):
        ratios = [f"{name} {s['total'] / inside['total']:.2f} x" for name, s in others.items()]
        text += f"\nLatency against the in-process web service: {', '.join(ratios)}.\n"
        told = [name for name in others if sources[name] == sources["in-process"] != DIFFERENCE]
        hops = [f"{name} {sum(others[name][stage] - inside[stage] for stage in INFER):.3g} ms" for name in told]
        text += f"Det and rec infer longer than in process, the cost of the hop: {', '.join(hops)}.\n" if hops else ""
    return text


def figures(data: Result) -> dict[str, Figure]:
    """One bar a set and service, one colour a stage."""
    from matplotlib.figure import Figure

    bars = {
        f"{set_name}, {name}": stages
        for set_name, found in data["sets"].items()
        for name, stages in found["services"].items()
    }
    figure = Figure(figsize=(8, 1 + 0.4 * len(bars)), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(bars)
    for stage, title in ROWS.items():
        if stage in ("server", "overhead", "total"):
            continue
        widths = [max(0.0, stages[stage]) for stages in bars.values()]
        axes.barh(list(bars), widths, left=left, label=title)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(fontsize="x-small", bbox_to_anchor=(1, 1), loc="upper left")
    return {"stages": figure}


def main() -> None:
    """Measure, write the result file, print the tables."""
    parser = result.parser(__doc__ or "", "stages")
    parser.add_argument("--repeat", type=int, default=5, help="times each image is sent, after one that does not count")
    parser.add_argument("--models", default="ppocrv6_small", help="family of the zoo's models (default: %(default)s)")
    args = parser.parse_args()
    sets = images.load(args.images, args.limit)
    result.finish(args, measure(sets, Models.fetch(args.models), args.repeat), markdown)


if __name__ == "__main__":
    main()
