"""How many processor cores this process may really use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_cores(memberships: Path = Path("/proc/self/cgroup"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Its CPU affinity, or the smallest CPU quota of its cgroups (v1 or v2), rounded up, where that is less.

    Args:
        memberships: says which cgroups it is in, as proc(5) describes.
        cgroups: where those are mounted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(memberships, cgroups)]))


def _quotas(memberships: Path, cgroups: Path) -> Iterator[int]:
    """Cores that each cgroup above this process allows, of those that have a quota."""
    with suppress(OSError):
        for line in memberships.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            own = cgroups / controllers / path.lstrip("/")  # a v2 hierarchy has no controllers here
            for folder in (own, *own.parents):
                with suppress(OSError, ValueError):  # no quota, or in a container: the path of the host
                    yield _quota(folder, version=1 if controllers else 2)
                if folder == cgroups:
                    break


def _quota(folder: Path, version: int) -> int:
    """Raises ValueError where there is none."""
    if version == 1:
        texts = [(folder / name).read_text(encoding="ascii") for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    else:
        texts = (folder / "cpu.max").read_text(encoding="ascii").split()
    quota, period = map(int, texts)
    if quota <= 0:
        raise ValueError
    return -(-quota // period)
