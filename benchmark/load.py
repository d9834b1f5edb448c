"""A service under load: throughput, latency, processor time and memory of each process.

    .venv/bin/python benchmark/load.py --images imgs

Closed loop first, 1 to 64 clients that each wait for an answer before they send the next image. Its steps take turns, a
third of their time each, so that whatever else the machine does meets all alike; a throughput is the median of the
three, and the best one is the capacity. Then open loop: images arrive at random moments at a share of the capacity, and
a latency counts from the moment of arrival. Over loopback; no request is sent after the --seconds of its step. The p99
of fewer than 100 answers is the slowest.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING

import psutil
from harness import images, result, traffic
from harness.measure import latency
from harness.plot import log_x, log_y
from harness.result import Result
from harness.services import SERVICES, Models, Running
from harness.traffic import Outcome
from harness.usage import Usage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
RATES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25)
"""Shares of the capacity."""
TURNS = 3
"""Parts of each step of the closed loop."""

Part = tuple[Outcome, Result]
"""What came of a step, or of a part of it, and what the processes used."""


def measure(
    service: Running, pictures: Sequence[images.LabelledImage], clients: Sequence[int], rates: Sequence[float],
    seconds: float,
) -> Result:  # fmt: skip
    """Every step of one service."""
    with closing(service.connect()) as client:
        bodies = [client.body(picture.file) for picture in pictures]
        for body in bodies:
            client.ask(body)
    parts: dict[int, list[Part]] = {count: [] for count in clients}
    for _ in range(TURNS):
        for count in clients:
            run = partial(traffic.closed_loop, service.connect, bodies, count, seconds / TURNS)
            parts[count].append(_part(service, run))
    closed = [{"clients": count, **_step(each)} for count, each in parts.items()]
    capacity = max(step["images_per_s"] for step in closed)
    opened = []
    for share in rates:
        run = partial(traffic.open_loop, service.connect, bodies, share * capacity, seconds)
        opened.append({"share": share, "rate": share * capacity, **_step([_part(service, run)])})
    return {"capacity": capacity, "closed": closed, "open": opened}


def _part(service: Running, run: Callable[[], Outcome]) -> Part:
    with Usage(service.processes | {"load generator": psutil.Process()}) as usage:
        outcome = run()
    print(f"{len(outcome.latencies)} answers in {outcome.seconds:.1f} s", file=sys.stderr)
    return outcome, usage.summary()


def _step(parts: Sequence[Part]) -> Result:
    """One step out of its parts."""
    outcomes, usages = zip(*parts, strict=True)
    latencies = [seconds for outcome in outcomes for seconds in outcome.latencies]
    return {
        "answers": len(latencies),
        "images_per_s": round(median(len(outcome.latencies) / outcome.seconds for outcome in outcomes), 3),
        **(latency(latencies) if latencies else {"p50_ms": None, "p99_ms": None}),
        "failures": dict(sum((Counter(outcome.failures) for outcome in outcomes), Counter())),
        "processes": {
            name: {
                "cores": round(fmean(usage[name]["cores"] for usage in usages), 2),
                "rss_mb": max(usage[name]["rss_mb"] for usage in usages),
            }
            for name in usages[0]
        },
    }


def markdown(data: Result) -> str:
    """Two tables a service."""
    parts = []
    for name, steps in data.items():
        processes = list(steps["closed"][0]["processes"])
        head = ["answers", "images/s", "p50 ms", "p99 ms", "not answered", *(f"{p}: cores, MB" for p in processes)]
        closed = [[step["clients"], *_cells(step), _against_queueing(step)] for step in steps["closed"]]
        opened = [[f"{s['share']:.0%} of capacity, {s['rate']:.3g}/s", *_cells(s)] for s in steps["open"]]
        parts.append(result.table([f"{name}, clients", *head, "p99 / ideal queueing"], closed))
        parts.append(result.table([f"{name}, arrivals", *head], opened))
    parts.append("Ideal queueing: with n clients and the throughput measured, each would wait n / throughput.\n")
    return "\n".join(parts)


def _against_queueing(step: Result) -> float | None:
    """p99 as a multiple of the ideal: n clients share the throughput, so each would wait n / throughput."""
    return step["p99_ms"] * step["images_per_s"] / (1000 * step["clients"]) if step["p99_ms"] else None


def _cells(step: Result) -> list[object]:
    failures = ", ".join(f"{count} x {why}" for why, count in step["failures"].items()) or 0
    used = [f"{p['cores']:.2f}, {p['rss_mb']:.0f}" for p in step["processes"].values()]
    return [step["answers"], step["images_per_s"], step["p50_ms"], step["p99_ms"], failures, *used]


def figures(data: Result) -> dict[str, Figure]:
    """Throughput against clients, and latency against the rate of arrivals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, steps in data.items():
        closed, opened = steps["closed"], steps["open"]
        left.plot([s["clients"] for s in closed], [s["images_per_s"] for s in closed], marker="o", label=name)
        for key, style in (("p50_ms", "-"), ("p99_ms", "--")):
            right.plot(
                [s["share"] for s in opened], [s[key] for s in opened], style, marker=".", label=f"{name} {key[:3]}"
            )
    log_x(left, [step["clients"] for step in closed])
    log_y(right)
    left.set(xlabel="clients", ylabel="images/s", ylim=(0, None))
    right.set(xlabel="arrivals, share of capacity", ylabel="latency, ms")
    left.legend(fontsize="x-small")
    right.legend(fontsize="x-small")
    return {"load": figure}


def main() -> None:
    """Measure, write the result file, print the tables."""
    parser = result.parser(__doc__ or "", "load")
    parser.add_argument("--services", nargs="+", choices=SERVICES, default=list(SERVICES), metavar="NAME")
    parser.add_argument("--clients", nargs="+", type=int, default=CONCURRENCY, metavar="N", help="of the closed loop")
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, metavar="SHARE", help="of the capacity")
    parser.add_argument("--seconds", type=float, default=15, help="of each step (default: %(default)s)")
    parser.add_argument("--models", default="ppocrv6_small", help="family of the zoo's models (default: %(default)s)")
    args = parser.parse_args()
    pictures = [picture for image_set in images.load(args.images, args.limit) for picture in image_set.images]
    data = {}
    for name in args.services:
        with SERVICES[name](Models.fetch(args.models)) as service:
            data[name] = measure(service, pictures, args.clients, args.rates, args.seconds)
    result.finish(args, data, markdown)


if __name__ == "__main__":
    main()
