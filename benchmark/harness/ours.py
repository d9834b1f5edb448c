"""Our pipeline in this process, as the in-process web service runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.lines import Read
from harness.services import Models
from ocr_serving import image, settings
from ocr_serving.web.wiring import running_service


@contextmanager
def reader(models: Models) -> Iterator[Read]:
    """A function from the bytes of an image file to its texts; thread-safe."""
    chosen = settings.load(models.settings)
    with running_service("ocr", True, chosen) as service:

        def read(data: bytes) -> list[str]:
            answer = service.answer([image.decode(data, chosen.max_pixels)], ["res"], None)
            assert isinstance(answer, dict)
            return answer["res"]

        yield read
