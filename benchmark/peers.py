"""Our pipeline and service against other OCR systems, side by side: speed and F1.

    .venv/bin/python benchmark/peers.py --images SET...

Every peer runs in a process of its own and, but for ours, in an environment of its own, made with pip when first
needed. All stay loaded, and read every image in turn, so that whatever else the machine does meets all alike. A time is
that from the bytes of an image file to its texts; the p99 of fewer than 100 images is the slowest.

Det sees images whose longest side has 960 pixels at most, our default (where text is small or in doubt, ours then
looks again at up to twice the size), in all systems but one: RapidOCR is measured at its own default, which enlarges
images until their shorter side has 736 pixels, and, in the rows named -960, at a longest side of 960.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from statistics import geometric_mean
from typing import TYPE_CHECKING

from harness import environment, images, result, turns
from harness.images import ImageSet
from harness.measure import latency
from harness.peer import Peer, PeerProcess, WebPeer
from harness.result import Result
from harness.services import SERVICES, Models

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Contender:
    """A system to compare.

    Attributes:
        weights: its models; speed is compared between equal ones.
        open: starts it.
        ours: whether it is one of ours.
    """

    weights: str
    open: Callable[[ExitStack], Peer]
    ours: bool = False


def process(worker: str, *arguments: str, requirements: Sequence[str] = ()) -> Callable[[ExitStack], Peer]:
    """Starts a worker script; the requirements make up its environment."""
    return lambda stack: stack.enter_context(PeerProcess(environment.python(requirements), worker, arguments))


def service(name: str, family: str) -> Callable[[ExitStack], Peer]:
    """Starts one of our services."""
    return lambda stack: WebPeer(stack.enter_context(SERVICES[name](Models.fetch(family))), stack)


def paddlex(stack: ExitStack) -> Peer:
    """Starts PaddleX's server."""
    models = Models.fetch("ppocrv4_mobile")
    start = process("worker_paddlex.py", str(models.det), str(models.rec), requirements=PADDLEX)
    return start(stack)


def rapidocr(*arguments: str) -> Contender:
    """RapidOCR on an engine, at its own image size or at another; see worker_rapidocr.py."""
    return Contender(SMALL, process("worker_rapidocr.py", *arguments, requirements=RAPIDOCR))


SMALL, TINY, V4 = "PP-OCRv6 small", "PP-OCRv6 tiny", "PP-OCRv4 mobile"
RAPIDOCR = ("rapidocr==3.10.0", f"openvino=={version('openvino')}", "onnxruntime==1.31.1")
FASTER_PADDLE = ("faster-paddle==1.0.4",)
PADDLEX = ("paddlex[serving,ocr-core]==3.7.2", "paddlepaddle==3.2.2")
PEERS = {
    "ours": Contender(SMALL, process("worker_ours.py", "ppocrv6_small"), ours=True),
    "ours-rpc": Contender(SMALL, service("RPC", "ppocrv6_small"), ours=True),
    "rapidocr-openvino": rapidocr("openvino"),
    "rapidocr-openvino-960": rapidocr("openvino", "960"),
    "rapidocr-onnxruntime": rapidocr("onnxruntime"),
    "rapidocr-onnxruntime-960": rapidocr("onnxruntime", "960"),
    "faster-paddle": Contender(SMALL, process("worker_faster_paddle.py", "small", requirements=FASTER_PADDLE)),
    "ours-tiny": Contender(TINY, process("worker_ours.py", "ppocrv6_tiny"), ours=True),
    "faster-paddle-tiny": Contender(TINY, process("worker_faster_paddle.py", "tiny", requirements=FASTER_PADDLE)),
    "ours-v4": Contender(V4, process("worker_ours.py", "ppocrv4_mobile"), ours=True),
    "paddlex": Contender(V4, paddlex),
}
"""Name -> contender; of ours with the same weights, the first one is what the others are compared with."""
OPTIONAL = ("ours-v4", "paddlex")
"""Only when named: PaddleX brings 1.4 GB of packages."""


def measure(sets: Sequence[ImageSet], names: Sequence[str], repeat: int) -> Result:
    """Set -> peer -> figures."""
    with ExitStack() as stack:
        peers = {}
        for name in names:
            print(f"Starting {name}", file=sys.stderr)
            peers[name] = PEERS[name].open(stack)
        found = {}
        for image_set in sets:
            turns.warm_up(image_set, peers)
            found[image_set.name] = turns.read_set(image_set, peers, 1 + repeat)
    return {
        "weights": {name: PEERS[name].weights for name in names},
        "ours": [name for name in names if PEERS[name].ours],
        "sets": {
            image_set.name: {name: _figures(image_set, found[image_set.name][name]) for name in names}
            for image_set in sets
        },
        "ratios": dict(_ratios(found, names)),
    }


def _figures(image_set: ImageSet, readings: list[turns.Passes]) -> Result:
    """Of one peer on one set: speed on images seen before and at first sight, latencies, F1."""
    seen = [seconds for seconds in map(turns.seen, readings) if seconds]
    first = [passes[0].seconds for passes in readings if passes[0]]
    return {
        "images": len(image_set.images),
        "failed": sum(passes[-1] is None for passes in readings),
        "images_per_s": len(seen) / sum(seen) if seen else None,
        "first_sight_images_per_s": len(first) / sum(first) if first else None,
        **(latency(seen) if seen else {"p50_ms": None, "p99_ms": None}),
        "f1": turns.mean_f1(image_set.images, readings),
    }


def _ratios(found: dict[str, turns.Readings], names: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Peer -> set -> images/s of ours with the same weights over the peer's, on the images that both read."""
    for name in names:
        ours = next((n for n in names if PEERS[n].ours and PEERS[n].weights == PEERS[name].weights), None)
        if ours is None or ours == name:
            continue
        by_set = {}
        for set_name, readings in found.items():
            pairs = [
                (a, b)
                for a, b in zip(map(turns.seen, readings[name]), map(turns.seen, readings[ours]), strict=True)
                if a and b
            ]
            if pairs:
                by_set[set_name] = sum(a for a, _ in pairs) / sum(b for _, b in pairs)
        yield name, by_set


def markdown(data: Result) -> str:
    """One table a set, and the ratios."""
    parts = []
    for set_name, peers in data["sets"].items():
        columns = ("images_per_s", "first_sight_images_per_s", "p50_ms", "p99_ms", "f1", "failed")
        rows = [
            [name, data["weights"][name], *(figures[column] for column in columns)] for name, figures in peers.items()
        ]
        count = next(iter(peers.values()))["images"]
        head = [
            f"{set_name}, {count} images",
            "weights",
            "images/s",
            "at first sight",
            "p50 ms",
            "p99 ms",
            "F1",
            "failed",
        ]
        parts.append(result.table(head, rows))
    if data["ratios"]:
        rows = [
            [name, *(by_set.get(s) for s in data["sets"]), geometric_mean(by_set.values()) if by_set else None]
            for name, by_set in data["ratios"].items()
        ]
        head = ["images/s of ours, in process, same weights, as a multiple of", *data["sets"], "geometric mean"]
        parts.append(result.table(head, rows))
    return "\n".join(parts)


def figures(data: Result) -> dict[str, Figure]:
    """Images/s of each peer, a group of bars a set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    names, sets = list(data["weights"]), data["sets"]
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        heights = [peers[name]["images_per_s"] or 0.0 for peers in sets.values()]
        axes.bar([j + i * width for j in range(len(sets))], heights, width, label=f"{name} ({data['weights'][name]})")
    axes.set_xticks([j + 0.4 - width / 2 for j in range(len(sets))], list(sets))
    axes.set_ylabel("images/s")
    axes.legend(fontsize="x-small")
    return {"peers": figure}


def main() -> None:
    """Measure, write the result file, print the tables."""
    parser = result.parser(__doc__ or "", "peers")
    usual = [name for name in PEERS if name not in OPTIONAL]
    known = f"{', '.join(PEERS)} (default: all but {', '.join(OPTIONAL)})"
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=usual, metavar="NAME", help=known)
    parser.add_argument("--repeat", type=int, default=2, help="passes after the first (default: %(default)s)")
    args = parser.parse_args()
    result.finish(args, measure(images.load(args.images, args.limit), args.peers, args.repeat), markdown)


if __name__ == "__main__":
    main()
