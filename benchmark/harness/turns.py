"""Peers that read a set of images side by side: they take turns at each image, so that all meet the same machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from f1 import page_f1

from harness.images import ImageSet, LabelledImage
from harness.peer import Peer, PeerFailed, Reading

PAUSE_SECONDS = 0.05
"""Between two peers: threads that spin for a while after their work would slow down the next one."""

Passes = list[Reading | None]
"""The readings of one image by one peer, one a pass; None where the peer failed."""
Readings = dict[str, list[Passes]]
"""Peer -> image -> readings."""


def warm_up(image_set: ImageSet, peers: Mapping[str, Peer]) -> None:
    """Let each peer read one image, which does not count."""
    for name, peer in peers.items():
        _read(name, peer, image_set.images[0])


def read_set(image_set: ImageSet, peers: Mapping[str, Peer], passes: int) -> Readings:
    """Several passes over the set; the peers take turns at each image, and at being first."""
    found: Readings = {name: [[] for _ in image_set.images] for name in peers}
    names = list(peers)
    for turn in range(passes):
        for i, picture in enumerate(image_set.images):
            print(f"\r{image_set.name}: pass {turn}, image {i + 1}", end="", file=sys.stderr)
            shift = (i + turn) % len(names)
            for name in names[shift:] + names[:shift]:
                time.sleep(PAUSE_SECONDS)
                found[name][i].append(_read(name, peers[name], picture))
    print(file=sys.stderr)
    return found


def seen(passes: Passes) -> float | None:
    """Median seconds of the passes after the first, if there are any."""
    times = [reading.seconds for reading in passes[1:] or passes if reading]
    return median(times) if times else None


def mean_f1(pictures: Sequence[LabelledImage], readings: Sequence[Passes]) -> float | None:
    """Mean F1 of the labelled images as the last pass read them, a failure counting as no text; None without labels."""
    f1 = [
        page_f1(picture.truth, passes[-1].texts if passes[-1] else [])
        for picture, passes in zip(pictures, readings, strict=True)
        if picture.truth is not None
    ]
    return round(fmean(f1), 4) if f1 else None


def _read(name: str, peer: Peer, picture: LabelledImage) -> Reading | None:
    try:
        return peer.read(picture.file)
    except PeerFailed as error:
        print(f"\n{name}: {error}", file=sys.stderr)
        return None
