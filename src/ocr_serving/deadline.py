"""When a request's time is up."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ocr_serving.errors import DeadlineExceeded


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock (a jump of the wall clock moves nothing).

    Attributes:
        at: seconds, as of time.monotonic().
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def check(self, doing: str) -> None:
        """Raise DeadlineExceeded if the time is up; `doing` completes "the time for this request ran out ..."."""
        if time.monotonic() >= self.at:
            raise DeadlineExceeded(f"The time for this request ran out {doing}.")


def remaining(deadline: Deadline | None) -> float | None:
    """Seconds left of an optional deadline; None means no limit."""
    return None if deadline is None else deadline.remaining()
