"""Where the time of a request goes, stage by stage: the original's own table, for every service.

    .venv/bin/python benchmark/stages.py --images imgs

One client sends one image after the other, to each service in turn. The time of det and of rec is what the service says
in its Server-Timing header. How they divide into pre, infer and post is measured right after, on the same pipeline put
together in this process: for the RPC service on its own model servers, for the in-process one on models of this
process. The chained server says nothing of its stages, so only what its client sees is told.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from harness import images, ours, result
from harness.images import ImageSet
from harness.measure import milliseconds
from harness.result import Result
from harness.services import SERVICES, Models, Running
from harness.staged import StagedPipeline, staged
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
Stages = dict[str, float]


class Subject:
    """A service and what is needed to take its time apart."""

    def __init__(self, service: Running, models: Models, stack: ExitStack) -> None:
        self._service = service
        self._models = models
        self._stack = stack
        self._client = stack.enter_context(closing(service.connect()))

    @cached_property
    def _reference(self) -> StagedPipeline:
        chosen = ours.choose(self._models)
        predictors: AbstractContextManager[tuple[Predictor, Predictor]] = ours.local_predictors(self._models, chosen)
        if self._service.det_endpoint:
            predictors = ours.remote_predictors(self._models, self._service)
        det, rec = self._stack.enter_context(predictors)
        return self._stack.enter_context(staged(det, rec, self._models, chosen))

    def measure(self, file: Path) -> Stages:
        """Stage -> seconds of one image, sent once."""
        begin = time.perf_counter()
        body = self._client.body(file)
        client_read = time.perf_counter() - begin
        answer = self._client.ask(body)
        seen = {"client_read": client_read, "total": client_read + answer.first_byte + answer.rest}
        return {**seen, **self._server(answer, file.read_bytes())} if answer.server else seen

    def _server(self, answer: Answer, data: bytes) -> Stages:
        """The stages on the server, and what is left for the ways to it and from it."""
        told = {stage: answer.server.get(stage, 0.0) for stage in TOLD}
        stages = self._reference.run(ours.decode(data))
        det_infer = told["det"] - stages["det_pre"] - stages["det_post"]
        rec_infer = told["crop"] + told["rec"] - stages["rec_pre"] - stages["rec_post"]
        return {
            **stages,
            "upload": answer.first_byte - told["total"],
            "decode": told["parse"] + told["decode"],
            "det_infer": det_infer,
            "rec_infer": rec_infer,
            "download": answer.rest,
            "server": told["total"],
            "overhead": told["total"] - det_infer - rec_infer,
        }


def measure(sets: Sequence[ImageSet], models: Models, repeat: int) -> Result:
    """Set -> service -> stage -> mean over the images, of medians over the repeats, in ms; None if not told."""
    with ExitStack() as stack:
        subjects = {
            name: Subject(stack.enter_context(start(models)), models, stack) for name, start in SERVICES.items()
        }
        found = {
            image_set.name: {"images": len(image_set.images), "services": _services(image_set, subjects, repeat)}
            for image_set in sets
        }
    return {"sets": found}


def _services(image_set: ImageSet, subjects: Mapping[str, Subject], repeat: int) -> dict[str, Result]:
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


def _summary(images_: list[list[Stages]]) -> Result:
    told = images_[0][0]
    return {
        stage: milliseconds(mean(median(run[stage] for run in runs) for runs in images_)) if stage in told else None
        for stage in ROWS
    }


def markdown(data: Result) -> str:
    """A table a set."""
    return "\n".join(_table(name, found) for name, found in data["sets"].items())


def _table(set_name: str, found: Result) -> str:
    """The table of one set, and what the services cost against each other."""
    services = found["services"]
    rows: list[list[object]] = [[title, *(s[stage] for s in services.values())] for stage, title in ROWS.items()]
    told = {name for name, stages in services.items() if stages["server"] is not None}
    infer = {name: sum(services[name][stage] for stage in INFER) for name in told}
    outside = [round(100 * (1 - infer[n] / s["total"]), 1) if n in told else None for n, s in services.items()]
    rows.append(["outside det and rec inference, % of total", *outside])
    text = result.table([f"{set_name}, ms, mean of {found['images']} images", *services], rows)
    others = dict(services)
    if inside := others.pop("in-process", None):
        ratios = [f"{name} {s['total'] / inside['total']:.2f} x" for name, s in others.items()]
        text += f"\nLatency against the in-process web service: {', '.join(ratios)}.\n"
        hops = [f"{name} {infer[name] - infer['in-process']:.3g} ms" for name in others if name in told]
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
        widths = [max(0.0, stages[stage] or 0.0) for stages in bars.values()]
        axes.barh(list(bars), widths, left=left, label=title)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    rest = [0.0 if s["server"] else s["total"] - start for start, s in zip(left, bars.values(), strict=True)]
    axes.barh(list(bars), rest, left=left, label="not told by the server", color="lightgrey")
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
