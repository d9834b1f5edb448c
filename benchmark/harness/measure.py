"""Statistics of times."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
    """The least of the values that this percentage of them does not exceed."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds; the p99 of fewer than 100 times is the longest."""
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
