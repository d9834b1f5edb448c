"""Statistics of times."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np


def milliseconds(seconds: float) -> float:
    """Rounded to a hundredth of a millisecond, to keep result files readable."""
    return round(1000 * seconds, 2)


def number(value: float) -> str:
    """With three significant digits, or none after the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value under which this percentage of the values lies, interpolated."""
    return float(np.percentile(values, percent))


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    return {"p50_ms": milliseconds(percentile(seconds, 50)), "p99_ms": milliseconds(percentile(seconds, 99))}


def median_time(run: Callable[[], Any], repeat: int) -> float:
    """Median seconds of `repeat` runs, after one that is not counted."""
    run()
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return median(times)


@dataclass(frozen=True)
class Growth:
    """How a cost changes: fixed + factor * x ** exponent.

    Attributes:
        fixed, factor: in the cost's unit.
        exponent: below 0 where the cost falls; None where it stays within a fifth of itself.
    """

    fixed: float
    factor: float
    exponent: float | None

    def words(self, x: str) -> str:
        """One sentence about the cost in milliseconds against a quantity named x."""
        if self.exponent is None:
            return f"The cost hardly depends on the {x}: {number(self.fixed)} ms."
        size, pace = abs(self.exponent), ""
        if not 0.85 <= size <= 1.15:
            pace = "more slowly than " if size < 1 else "faster than "
        change = (
            f"grows {pace or 'in proportion to '}" if self.exponent > 0 else f"falls {pace}in inverse proportion to "
        )
        formula = f"{number(self.fixed)} + {number(self.factor)} x^{self.exponent:.2f}"
        return f"The cost is {formula} ms: above its fixed part it {change}the {x}."

    def as_dict(self) -> dict[str, float | None]:
        """For a result file."""
        return asdict(self)


def growth(x: Sequence[float], cost: Sequence[float]) -> Growth:
    """The law that fits best, by relative error; needs three points or more to mean anything."""
    if max(cost) < 1.2 * min(cost):
        return Growth(median(cost), 0.0, None)
    inverse = 1 / np.asarray(cost, np.float64)
    best, least = Growth(0.0, 0.0, None), np.inf
    sizes = np.arange(0.1, 3.01, 0.05)
    for exponent in np.concatenate([sizes, -sizes]):
        powers = np.asarray(x, np.float64) ** exponent
        (fixed, factor), *_ = np.linalg.lstsq(np.stack([inverse, powers * inverse], 1), np.ones(len(x)), rcond=None)
        if fixed < 0:  # a cost of nothing is never less than nothing
            fixed, factor = 0.0, float((powers * inverse).sum() / ((powers * inverse) ** 2).sum())
        if factor < 0:  # what grows has a positive exponent, what falls a negative one
            continue
        error = float((((fixed + factor * powers) * inverse - 1) ** 2).sum())
        if error < least:
            best, least = Growth(float(fixed), float(factor), round(float(exponent), 2)), error
    return best
