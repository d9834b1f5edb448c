"""How many files, sockets included, a process may open."""

from __future__ import annotations

import resource

OTHERS = 64
"""Descriptors that a server needs besides those of its connections."""


def allow(wanted: int) -> int:
    """Let this process open so many, if the system lets it raise its limit; how many it may, at most `wanted`."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    return files
