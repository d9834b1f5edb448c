"""The id of the request that a thread works on: made or taken over at the door, carried over RPC, in every log line."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "X-Request-Id"

_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def accept(given: str | bytes | None) -> str:
    """The id that a caller gave, or a new one where it gave none or one that could do harm in a log or a path.

    Protobuf gives a field that is not UTF-8 as bytes.
    """
    return given if isinstance(given, str) and _ACCEPTED.fullmatch(given) else uuid.uuid4().hex


def current() -> str:
    """The id of the request that this thread works on, "" where there is none."""
    return _current.get()


@contextmanager
def working_on(identity: str) -> Iterator[None]:
    """The block works on the request of that id; threads it starts do so in a copy of its context."""
    token = _current.set(identity)
    try:
        yield
    finally:
        _current.reset(token)
