"""Where the time of a request goes, stage by stage: the original's own table, for every service.

    .venv/bin/python benchmark/stages.py --images imgs

One client sends one image after the other, to each service in turn. The time of det and of rec is what the service says
in its Server-Timing header. How they divide into pre, infer and post is measured on the same pipeline put together in
this process, on the same model servers. So are all stages of a service without that header; the transfer to the server
is then what is left of the time to the first byte. The chained server's client tells both transfers as one.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from harness import images, ours, result
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


def measure(sets: list[images.ImageSet], models: Models, repeat: int) -> Result:
    """Service -> stage -> mean over the images, of medians over the repeats, in milliseconds."""
    pictures = [picture for image_set in sets for picture in image_set.images]
    found: dict[str, list[list[Stages]]] = {name: [] for name in SERVICES}
    with ExitStack() as stack:
        subjects = {
            name: Subject(stack.enter_context(start(models)), models, stack) for name, start in SERVICES.items()
        }
        for picture in pictures:
            for turn in range(1 + repeat):
                for name, subject in subjects.items():
                    stages = subject.measure(picture.file)
                    if turn == 0:  # the warm-up
                        found[name].append([])
                    else:
                        found[name][-1].append(stages)
    sources = {name: subject.source for name, subject in subjects.items()}
    services = {name: _summary(runs) for name, runs in found.items()}
    return {"images": len(pictures), "sources": sources, "services": services}


def _summary(images_: list[list[Stages]]) -> dict[str, float]:
    return {stage: milliseconds(mean(median(run[stage] for run in runs) for runs in images_)) for stage in ROWS}


def markdown(data: Result) -> str:
    """The table."""
    services = data["services"]
    rows: list[list[object]] = [[title, *(s[stage] for s in services.values())] for stage, title in ROWS.items()]
    outside = [round(100 * (1 - sum(s[stage] for stage in INFER) / s["total"]), 1) for s in services.values()]
    rows.append(["outside det and rec inference, % of total", *outside])
    head = [f"ms, mean of {data['images']} images", *services]
    rows.append(["server's stages known by", *data["sources"].values()])
    text = result.table(head, rows)
    others = dict(services)
    if inside := others.pop("in-process", None):
        ratios = [f"{name} {s['total'] / inside['total']:.2f} x" for name, s in others.items()]
        text += f"\nLatency against the in-process web service: {', '.join(ratios)}.\n"
        told = [name for name in others if data["sources"][name] == data["sources"]["in-process"] != DIFFERENCE]
        hops = [f"{name} {sum(others[name][stage] - inside[stage] for stage in INFER):.3g} ms" for name in told]
        text += f"Det and rec infer longer than in process, the cost of the hop: {', '.join(hops)}.\n" if hops else ""
    return text


def figures(data: Result) -> dict[str, Figure]:
    """One bar a service, one colour a stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots()
    names, left = list(data["services"]), [0.0] * len(data["services"])
    for stage, title in ROWS.items():
        if stage in ("server", "overhead", "total"):
            continue
        widths = [max(0.0, data["services"][name][stage]) for name in names]
        axes.barh(names, widths, left=left, label=title)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.legend(fontsize="x-small", ncols=2, bbox_to_anchor=(1, 1), loc="upper left")
    return {"stages": figure}


def main() -> None:
    """Measure, write the result file, print the table."""
    parser = result.parser(__doc__ or "", "stages")
    parser.add_argument("--repeat", type=int, default=5, help="times each image is sent, after one that does not count")
    parser.add_argument("--models", default="ppocrv6_small", help="family of the zoo's models (default: %(default)s)")
    args = parser.parse_args()
    sets = images.load(args.images, args.limit)
    result.finish(args, measure(sets, Models.fetch(args.models), args.repeat), markdown)


if __name__ == "__main__":
    main()
