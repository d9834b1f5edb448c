"""What a process must not share with a child that it forks: open connections, and locks that a thread may hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value that a forked child makes anew for itself, on first use.

    Threads that ask for it at the same time may get two values in a new child; otherwise it is thread-safe.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        """
        Args:
            make: makes the value, now and once in each child.
        """
        self._make = make
        self._pid, self._value = os.getpid(), make()

    def get(self) -> T:
        """This process's value."""
        if self._pid != os.getpid():
            self._value = self._make()
            self._pid = os.getpid()
        return self._value
