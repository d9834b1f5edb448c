"""Our pipeline in one process, as a peer: worker_ours.py MODEL_FAMILY [CORES]."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from harness.lines import Read, serve


def load(stack: ExitStack, family: str) -> Read:
    """The in-process service, behind what the web app does with an image file."""
    from harness import ours
    from harness.services import Models

    return stack.enter_context(ours.reader(Models.fetch(family)))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])])
    with ExitStack() as closing:
        serve(lambda: load(closing, sys.argv[1]))
