"""D: image files, good and bad."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import cv2
import fuzz_targets
import image_files
import numpy as np
from harness.images import ROOT
from PIL import Image

from soak import client, hostile, pictures
from soak.memory import peak_mb, reset_peak
from soak.scenario import Context, Finding, Scenario, counts

FUZZ_ROUND = 8
"""Seconds that one fuzzing process runs: atheris keeps a kilobyte for each input of the web form, 400 MB in this time,
which is not to be taken for ours. Without atheris the same inputs take no memory."""


def d1(context: Context) -> Finding:
    """Small files, large pictures."""
    stack = context.shared
    process = stack.processes["web"]
    figures, passed = [], True
    for name, data in hostile.bombs().items():
        stack.ask()
        before = reset_peak(process)
        replies = [client.post(stack.port, client.body(data)) for _ in range(5)]
        grown, best = peak_mb(process) - before, min(reply.seconds for reply in replies)
        figures.append(f"{name}: {replies[0].status} in {1000 * best:.0f} ms, {grown:+.1f} MB")
        passed &= all(r.status in (400, 413, 422) for r in replies) and best < 0.05 and grown < 20
    return Finding(", ".join(figures), passed and stack.is_alive())


def d2(context: Context) -> Finding:
    """No images, and parts of images."""
    stack = context.shared
    found = hostile.files()
    replies = client.send_all(stack.port, map(client.body, found.values()), 2)
    odd = [name for name, reply in zip(found, replies, strict=True) if reply.status not in (400, 422)]
    harmless = [
        name for name in odd if "damaged" in name
    ]  # a bit that flips in the pixels is no fault that can be seen
    statuses = client.statuses(replies)
    figure = (
        f"{len(found)} files: {counts(statuses)}; 200 for {', '.join(harmless) or 'none'}, in whose "
        "pixels bits were flipped"
    )
    return Finding(figure, odd == harmless and set(statuses) <= {200, 400, 422} and stack.is_alive())


def d3(context: Context) -> Finding:
    """Every kind that people have."""
    stack = context.shared
    found = image_files.files()
    replies = client.send_all(stack.port, map(client.body, found.values()), 2)
    wrong = [name for name, r in zip(found, replies, strict=True) if r.texts != list(image_files.TEXTS)]
    turned = _turned()
    upright = client.send_all(stack.port, map(client.body, turned), 2)
    wrong += [f"orientation {i}" for i, r in enumerate(upright, 1) if r.texts != list(image_files.TEXTS)]
    shapes = ((1, 1), (1, 5000), (5000, 1), (10, 20000), (16000, 640))
    blank = [client.body(pictures.png(np.full((*shape, 3), 255, np.uint8))) for shape in shapes]
    sizes = [client.post(stack.port, data) for data in blank]
    figure = (
        f"{len(found)} kinds and EXIF 1 to 8: {len(wrong)} with another text than the plain twin; blank "
        f"1x1, 5000x1, 1x5000, 20000x10, 640x16000: {[r.status for r in sizes]}"
    )
    return Finding(f"{figure} {wrong or ''}", not wrong and all(reply.texts == [] for reply in sizes))


def _turned() -> list[bytes]:
    """The picture, stored so that the EXIF orientation 1 to 8 makes it upright."""
    turns = Image.Transpose
    ways = (None, turns.FLIP_LEFT_RIGHT, turns.ROTATE_180, turns.FLIP_TOP_BOTTOM, turns.TRANSPOSE, turns.ROTATE_90,
            turns.TRANSVERSE, turns.ROTATE_270)  # fmt: skip
    plain = image_files.rgb()
    return [
        image_files.oriented("JPEG", number, plain if way is None else plain.transpose(way), quality=95)
        for number, way in enumerate(ways, 1)
    ]


def d4(context: Context) -> Finding:
    """Coverage-guided fuzzing, each entry in a process of its own."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        return Finding(
            "atheris is not installed for this Python; hypothesis fuzzes the same entries in make test", None
        )
    seconds, figures, passed = context.options.fuzz_seconds, [], True
    for target in fuzz_targets.TARGETS:
        rounds = [min(FUZZ_ROUND, seconds - begin) for begin in range(0, seconds, FUZZ_ROUND)]
        inputs = [_fuzz(target, length) for length in rounds]
        found = " FAILED" if None in inputs else ""
        figures.append(f"{target} {sum(filter(None, inputs)):,} inputs{found}")
        passed &= not found
    return Finding(f"{seconds} s each: {', '.join(figures)}", passed)


def _fuzz(target: str, seconds: int) -> int | None:
    """How many inputs a fuzzing process tried; None if it found something, which is printed."""
    command = [sys.executable, "tests/fuzz/run.py", target, str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=seconds + 120)
    runs = re.search(r"Done (\d+) runs", done.stderr)
    if done.returncode == 0 and runs:
        return int(runs[1])
    print(done.stderr[-3000:], file=sys.stderr)
    return None


def d5(context: Context) -> Finding:
    """Nothing to read, noise, and too much to read."""
    stack = context.shared
    noise = np.random.default_rng(1).integers(0, 256, (1200, 1200, 3), np.uint8)
    cell = np.full((32, 64, 3), 255, np.uint8)
    cv2.putText(cell, "word", (6, 24), (0, 0, 0), cv2.FontFace("uni"), 20)
    page = np.tile(cell, (100, 50, 1))
    replies, begin = {}, time.monotonic()
    for name, image in {"blank": np.full((1200, 1200, 3), 255, np.uint8), "noise": noise, "5000 words": page}.items():
        replies[name] = client.post(stack.port, client.body(pictures.png(image)))
    seconds = time.monotonic() - begin
    figure = ", ".join(
        f"{name} {reply.status} with {len(reply.texts or ())} texts in {reply.seconds:.1f} s"
        for name, reply in replies.items()
    )
    with context.stack("--det-max-boxes", "3") as few:
        capped = client.post(few.port, client.body((ROOT / "imgs/sign.jpg").read_bytes()))
    statuses = {reply.status for reply in replies.values()}
    passed = replies["blank"].texts == [] and statuses <= {200, 422} and capped.status == 422 and seconds < 60
    return Finding(
        f"{figure}; more boxes than det_max_boxes: {capped.status} {capped.code}", passed and stack.is_alive()
    )


SCENARIOS = (
    Scenario("D1", "headers that announce huge pictures", d1),
    Scenario("D2", "no images, cut at every sixteenth, damaged", d2),
    Scenario("D3", "every kind of file and of pixel; EXIF 1 to 8; extreme shapes", d3),
    Scenario(
        "D4",
        "atheris (tests/fuzz/run.py), from good inputs, on every decoder of what comes from outside",
        d4,
        "fuzz_seconds",
    ),
    Scenario("D5", "a blank page, noise, a page of 5000 words", d5),
)
