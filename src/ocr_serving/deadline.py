"""Until when a request is worth working on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ocr_serving.errors import ClientLeft, DeadlineExceeded

FOREVER_SECONDS = 1e9
"""A longer time limit is none: clients write "none" as some centuries, and Python's waits overflow."""


def _stays() -> bool:
    return False


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock (a jump of the wall clock moves nothing), or when the client leaves.

    Attributes:
        at: seconds, as of time.monotonic().
        has_left: whether nobody waits for the answer any more; cheap, and may be called from any thread.
    """

    at: float
    has_left: Callable[[], bool] = field(default=_stays, compare=False)

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def check(self, doing: str) -> None:
        """Raise DeadlineExceeded if the time is up, ClientLeft if nobody waits.

        Args:
            doing: completes "The time for this request ran out ...".
        """
        if self.has_left():
            raise ClientLeft("The client closed the connection before its answer was ready.")
        if time.monotonic() >= self.at:
            raise DeadlineExceeded(f"The time for this request ran out {doing}.")


def remaining(deadline: Deadline | None) -> float | None:
    """Seconds left of an optional deadline; None means no limit."""
    return None if deadline is None else deadline.remaining()
