"""M: memory, threads and file descriptors over many requests."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import psutil

from soak import client, pictures
from soak.scenario import Context, Finding, Scenario, counts

WARM_UP = 1000
THREADS = 8
PARTS = 10
"""The memory is looked at after each of so many parts of a run."""
LEAST_FOR_SLOPE = 10_000
"""Requests."""
NOISE_MB = 20
"""By which resident memory goes up and down under the same requests."""


class Footprint:
    """What each process holds at a moment: resident MB, threads, file descriptors."""

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self.held: dict[str, tuple[float, int, int]] = {
            name: (process.memory_info().rss / 1e6, process.num_threads(), process.num_fds())
            for name, process in processes.items()
        }

    @property
    def mb(self) -> float:
        """Of all processes together."""
        return sum(mb for mb, _, _ in self.held.values())

    def growth(self, before: Footprint) -> dict[str, tuple[float, int, int]]:
        """Of each process since an earlier moment."""
        return {
            name: (mb - before.held[name][0], threads - before.held[name][1], files - before.held[name][2])
            for name, (mb, threads, files) in self.held.items()
        }


def words(growth: Mapping[str, tuple[float, int, int]]) -> str:
    """For a report."""
    parts = [
        f"{name} {mb:+.1f} MB, {threads:+d} threads, {files:+d} files" for name, (mb, threads, files) in growth.items()
    ]
    return "; ".join(parts)


def is_flat(growth: Mapping[str, tuple[float, int, int]], most_mb: float) -> bool:
    """Whether all processes together grew by less, and their threads and files by no more than a "
    "few kept connections."""
    total = sum(mb for mb, _, _ in growth.values())
    return total < most_mb and all(threads <= 4 and files <= 4 for _, threads, files in growth.values())


def peak_mb(process: psutil.Process) -> float:
    """The most resident memory since reset_peak(), in MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM")


def reset_peak(process: psutil.Process) -> float:
    """Begin a new peak; returns the resident memory now, in MB."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")
    return peak_mb(process)


def _mixed(count: int) -> Iterator[bytes]:
    """Of ten, six pictures with a word, one with two of them, one without text, and two that are refused."""
    dice = random.Random(1)
    good = pictures.words(200)
    blank = pictures.line("", 40)
    for i in range(count):
        if i % 5 == 4:
            yield dice.choice(_REFUSED)
        elif i % 10 == 8:
            yield client.body(*dice.sample(good, 2), fetch=("dt_boxes", "scores"))
        elif i % 10 == 7:
            yield client.body(blank)
        else:
            yield client.body(dice.choice(good))


_REFUSED = (b"{", b"{}", client.body(b"no image"), client.body(b""), client.body(b"\x89PNG\r\n\x1a\n" + bytes(30)))


def m1(context: Context) -> Finding:
    """Many mixed requests."""
    count = context.options.requests
    with context.stack() as stack:
        warm_up = min(WARM_UP, count // 2)
        client.send_all(stack.port, _mixed(warm_up), THREADS)
        processes, bodies, replies = stack.processes, _mixed(count), Counter[int]()
        held = [Footprint(processes)]
        for _ in range(PARTS):
            part = islice(bodies, count // PARTS)
            replies.update(client.statuses(client.send_all(stack.port, part, THREADS)))
            held.append(Footprint(processes))
        grown = held[-1].growth(held[0])
        alive = stack.is_alive()
    slope = float(np.polyfit(np.linspace(0, count / 1000, PARTS + 1), [one.mb for one in held], 1)[0])
    figure = (
        f"{count} requests ({counts(replies)}) after {warm_up}: {words(grown)}; {slope:+.2f} MB in 1000 requests "
        f"(by {PARTS + 1} points)"
    )
    # A slope over so few requests that warming up is part of it says nothing.
    flat = is_flat(grown, 50) and (slope < 1 or count < LEAST_FOR_SLOPE)
    return Finding(figure, flat and set(replies) == {200, 400} and alive)


def m2(context: Context) -> Finding:
    """Sizes that never come twice; both halves have small and large ones."""
    count = context.options.scaled(2000)
    with context.stack() as stack:
        bodies = [client.body(file) for file in pictures.sizes(count)]
        # The largest, too, by all threads: what large images take is not what many sizes take.
        client.send_all(stack.port, [*map(client.body, pictures.words(200)), *bodies[-2 * THREADS :]], THREADS)
        processes = stack.processes
        before = Footprint(processes)
        first = client.statuses(client.send_all(stack.port, bodies[::2], THREADS))
        middle = Footprint(processes)
        second = client.statuses(client.send_all(stack.port, bodies[1::2], THREADS))
        end = Footprint(processes)
    grown = end.growth(before)
    late = end.mb - middle.mb
    figure = f"{count} sizes: {words(grown)}; {late:+.1f} MB of it in the second half"
    levelled = late < max(middle.mb - before.mb, NOISE_MB)
    return Finding(figure, is_flat(grown, 150) and levelled and set(first) | set(second) == {200})


def m3(context: Context) -> Finding:
    """Requests that fail."""
    count = context.options.scaled(10_000)
    with context.stack() as stack:
        client.send_all(stack.port, [_REFUSED[i % len(_REFUSED)] for i in range(500)], THREADS)
        processes = stack.processes
        before = Footprint(processes)
        replies = client.statuses(
            client.send_all(stack.port, (_REFUSED[i % len(_REFUSED)] for i in range(count)), THREADS)
        )
        grown = Footprint(processes).growth(before)
        alive = stack.is_alive()
    return Finding(f"{counts(replies)}: {words(grown)}", is_flat(grown, 10) and set(replies) == {400} and alive)


SCENARIOS = (
    Scenario("M1", "mixed small requests by 8 clients after a warm-up, one in five of them bad", m1, "requests"),
    Scenario("M2", "images of sizes that all differ", m2),
    Scenario("M3", "requests that fail: no JSON, no form, no image, nothing, a damaged image", m3),
)
