"""Our pipeline in one process, as a peer: worker_ours.py MODEL_FAMILY [CORES]."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from harness.lines import Read, serve


def load(stack: ExitStack, family: str) -> Read:
    """The in-process service, behind what the web app does with an image file."""
    from harness.services import Models

    from ocr_serving import image, settings
    from ocr_serving.web.wiring import running_service

    chosen = settings.load(Models.fetch(family).settings)
    service = stack.enter_context(running_service("ocr", True, chosen))

    def read(data: bytes) -> list[str]:
        answer = service.answer([image.decode(data, chosen.max_pixels)], ["res"], None)
        assert isinstance(answer, dict)
        return answer["res"]

    return read


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])])
    with ExitStack() as closing:
        serve(lambda: load(closing, sys.argv[1]))
