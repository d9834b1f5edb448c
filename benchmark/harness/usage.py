"""Processor time and memory of processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType

import psutil

SAMPLE_SECONDS = 0.25


def memory_mb(process: psutil.Process) -> dict[str, float]:
    """Resident memory in MB: all of it (rss), and with shared pages divided among those that share them (pss)."""
    info = process.memory_full_info()
    return {"rss_mb": round(info.rss / 1e6, 1), "pss_mb": round(getattr(info, "pss", info.rss) / 1e6, 1)}


class Usage:
    """What some processes use from the beginning to the end of a block."""

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = dict(processes)
        self._peak = dict.fromkeys(self._processes, 0)
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Usage:
        self._cpu = {name: _cpu_seconds(process) for name, process in self._processes.items()}
        self._begin = time.perf_counter()
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wall = time.perf_counter() - self._begin
        self._stop.set()
        self._sampler.join()
        self._cpu = {name: _cpu_seconds(process) - self._cpu[name] for name, process in self._processes.items()}

    def summary(self) -> dict[str, dict[str, float]]:
        """Process -> cores kept busy on average, and the most resident memory seen, in MB."""
        return {
            name: {"cores": round(self._cpu[name] / self._wall, 2), "rss_mb": round(self._peak[name] / 1e6, 1)}
            for name in self._processes
        }

    def _sample(self) -> None:
        while True:
            for name, process in self._processes.items():
                self._peak[name] = max(self._peak[name], process.memory_info().rss)
            if self._stop.wait(SAMPLE_SECONDS):
                return


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
