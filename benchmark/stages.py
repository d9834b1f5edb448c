"""Where the time of a request goes, stage by stage: the original's own table, for every service.

    .venv/bin/python benchmark/stages.py --images imgs

One client sends one image after the other, to each service in turn. A service that answers with a Server-Timing header
tells its stages itself. Of one that does not, the stages are those of the same pipeline put together in this process,
on the same model servers, and the transfer to the server is what is left of the time to the first byte.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from statistics import mean, median
from typing import TYPE_CHECKING

from harness import images, result, staged
from harness.measure import milliseconds
from harness.result import Result
from harness.services import SERVICES, Models, Running
from harness.web import Answer

from ocr_serving import image, settings
from ocr_serving.web import request_form

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INFER = ("det_infer", "rec_infer")
SERVER = ("decode", "det_pre", "det_infer", "det_post", "rec_pre", "rec_infer", "rec_post")
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
        self._reference: staged.StagedPipeline | None = None

    @property
    def source(self) -> str:
        """How the server's stages are known."""
        return "Server-Timing" if self._reference is None else "difference"

    def measure(self, labelled: images.LabelledImage) -> Stages:
        """Stage -> seconds of one image, sent once."""
        begin = time.perf_counter()
        body = self._client.body(labelled.file)
        client_read = time.perf_counter() - begin
        answer = self._client.ask(body)
        server = self._server(answer, body)
        known = server.get("total", sum(server.values()))
        return {
            "client_read": client_read,
            "upload": answer.first_byte - known,
            **{stage: server.get(stage, 0.0) for stage in SERVER},
            "download": answer.rest,
            "server": known,
            "overhead": known - sum(server.get(stage, 0.0) for stage in INFER),
            "total": client_read + answer.first_byte + answer.rest,
        }

    def _server(self, answer: Answer, body: bytes) -> Stages:
        if answer.server:
            return answer.server
        if self._reference is None:
            remote = staged.remote(self._models, self._service) if self._service.det_endpoint else None
            self._reference = self._stack.enter_context(remote or staged.local(self._models))
            self._reference.run(_decode(body))
        begin = time.perf_counter()
        picture = _decode(body)
        decode = time.perf_counter() - begin
        return {"decode": decode, **self._reference.run(picture)}


def _decode(body: bytes) -> image.Image:
    chosen = settings.Settings()
    return image.decode(request_form.parse(body, chosen.max_images).feed[0].x, chosen.max_pixels)


def measure(sets: list[images.ImageSet], models: Models, repeat: int) -> Result:
    """Service -> stage -> mean over the images, of medians over the repeats, in milliseconds."""
    pictures = [picture for image_set in sets for picture in image_set.images]
    found: dict[str, list[list[Stages]]] = {name: [] for name in SERVICES}
    with ExitStack() as stack:
        subjects = {
            name: Subject(stack.enter_context(start(models)), models, stack) for name, start in SERVICES.items()
        }
        for picture in pictures:
            runs = [{name: subject.measure(picture) for name, subject in subjects.items()} for _ in range(repeat + 1)]
            for name in subjects:
                found[name].append([run[name] for run in runs[1:]])  # the first one is the warm-up
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
    if "in-process" in services:
        base = services["in-process"]["total"]
        ratios = [f"{name} {s['total'] / base:.2f} x" for name, s in services.items() if name != "in-process"]
        text += f"\nLatency against the in-process web service: {', '.join(ratios)}.\n"
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
