"""From the start of the commands to the first answer, memory at rest, and the size of what is installed.

    .venv/bin/python benchmark/start.py

Ready means that the port accepts requests. The first start may have to make what later ones find: compiled Python
files, compiled models. At rest means after the first answer. Shared pages count once in pss, once a process in rss.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness import images, installed, result
from harness.result import Result
from harness.services import SERVICES, Models
from harness.usage import memory_mb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REST_SECONDS = 1.0
SHOWN_PACKAGES = 8


def measure(name: str, file: Path, models: Models, repeat: int) -> Result:
    """Every start of one service, in seconds, and the memory of the last one's processes."""
    starts = []
    for _ in range(repeat):
        begin = time.perf_counter()
        with SERVICES[name](models) as service, closing(service.connect()) as client:
            ready = time.perf_counter() - begin
            client.ask(client.body(file))
            starts.append({"ready_s": round(ready, 2), "first_answer_s": round(time.perf_counter() - begin, 2)})
            time.sleep(REST_SECONDS)
            memory = {process: memory_mb(handle) for process, handle in service.processes.items()}
        print(f"{name}: {starts[-1]}", file=sys.stderr)
    return {"starts": starts, "memory": memory}


def markdown(data: Result) -> str:
    """Starts, memory, packages."""
    starts = []
    for name, found in data["services"].items():
        for key, title in (("ready_s", "ready"), ("first_answer_s", "first answer")):
            starts.append([f"{name}, {title}", *_first_and_later(found["starts"], key)])
    memory: list[list[object]] = []
    for name, found in data["services"].items():
        processes = found["memory"]
        memory += [[f"{name}, {process}", m["rss_mb"], m["pss_mb"]] for process, m in processes.items()]
        memory.append([f"{name}, together", *(sum(m[k] for m in processes.values()) for k in ("rss_mb", "pss_mb"))])
    packages = list(data["packages"].items())
    shown = [*packages[:SHOWN_PACKAGES], ("others", sum(size for _, size in packages[SHOWN_PACKAGES:]))]
    shown.append(("together", sum(size for _, size in packages)))
    return "\n".join(
        (
            result.table(["seconds from the start of the commands to", "first start", "later ones, median"], starts),
            result.table(["memory at rest, MB", "rss", "pss"], memory),
            result.table(["installed, MB", ""], shown),
        )
    )


def figures(data: Result) -> dict[str, Figure]:
    """Seconds to the first answer of each service, the first start and later ones, and memory at rest."""
    from matplotlib.figure import Figure

    services = data["services"]
    names = list(services)
    figure = Figure(figsize=(8, 1 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, title in enumerate(("first start", "later ones, median")):
        seconds = [_first_and_later(found["starts"], "first_answer_s")[i] for found in services.values()]
        left.barh([row + 0.4 * i - 0.2 for row in range(len(names))], seconds, 0.4, label=title)
    left.set_yticks(range(len(names)), names)
    memory = [sum(m["pss_mb"] for m in found["memory"].values()) for found in services.values()]
    right.barh(range(len(names)), memory, color="lightsteelblue")
    left.set_xlabel("s to the first answer")
    right.set_xlabel("memory at rest, MB (pss)")
    figure.legend(fontsize="x-small", loc="outside upper left", ncols=2)
    left.invert_yaxis()
    return {"start": figure}


def _first_and_later(starts: Sequence[Result], key: str) -> tuple[float, float]:
    """Seconds of the first start, and the median of the later ones."""
    times = [start[key] for start in starts]
    return times[0], median(times[1:] or times)


def main() -> None:
    """Measure, write the result file, print the tables."""
    parser = result.parser(__doc__ or "", "start")
    parser.add_argument("--services", nargs="+", choices=SERVICES, default=list(SERVICES), metavar="NAME")
    parser.add_argument("--repeat", type=int, default=4, help="starts of each service (default: %(default)s)")
    parser.add_argument("--models", default="ppocrv6_small", help="family of the zoo's models (default: %(default)s)")
    args = parser.parse_args()
    file = images.load(args.images, args.limit)[0].images[0].file
    models = Models.fetch(args.models)
    services = {name: measure(name, file, models, args.repeat) for name in args.services}
    result.finish(args, {"services": services, "packages": installed.sizes()}, markdown)


if __name__ == "__main__":
    main()
