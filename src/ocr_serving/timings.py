"""How long each stage of one request took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Stage = Literal["queue", "parse", "decode", "det", "crop", "rec", "encode"]
"""In the order that a request meets them: waiting for its turn, JSON and base64, the image files, the pipeline's three,
the answer's JSON. The same names are in Server-Timing, metrics and logs."""


class Timings:
    """Stages of one request; for one thread.

    Attributes:
        seconds: stage -> seconds; the times of a stage that runs several times are added.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """The block is that stage, also where it fails."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begin

    def milliseconds(self) -> dict[str, float]:
        """Stage -> milliseconds, to a tenth."""
        return {name: round(1000 * seconds, 1) for name, seconds in self.seconds.items()}
