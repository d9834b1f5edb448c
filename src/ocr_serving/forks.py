"""What a process must not share with the child that it forks: open connections, and locks that a thread may hold."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Keeps connections."""

    def begin_in_child(self) -> None:
        """Connect anew, as this process is a child that was forked; the inherited connections are the parent's.

        No other thread is there, and locks may be as another thread left them.
        """


_KEPT: weakref.WeakSet[Forked] = weakref.WeakSet()


def keep_apart(owner: Forked) -> None:
    """Let its begin_in_child() be called in every child that this process forks, for as long as it lives."""
    _KEPT.add(owner)


def _begin_in_child() -> None:
    for owner in list(_KEPT):
        owner.begin_in_child()


os.register_at_fork(after_in_child=_begin_in_child)
