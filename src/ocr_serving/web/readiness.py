"""Whether the service would answer a request now: each model is run on something tiny."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from ocr_serving.deadline import Deadline
from ocr_serving.errors import OcrServingError
from ocr_serving.web.backend import Backend

logger = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
"""How long a finding is passed on before the models are asked again."""
CHECK_SECONDS = 2.0
"""How long a model may take to answer."""


class Readiness:
    """Asks the models, one caller at a time; others meanwhile get the last finding, so that probes never pile up."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = backends
        self._asking = threading.Lock()
        self._found = {backend.role: "not asked yet" for backend in backends}
        self._expires = 0.0

    def faults(self) -> dict[str, str]:
        """Role of each model that does not answer -> what is wrong; {} when the service is ready."""
        if time.monotonic() >= self._expires and self._asking.acquire(blocking=False):
            try:
                found = {backend.role: _fault(backend) for backend in self._backends}
                self._found = {role: fault for role, fault in found.items() if fault}
                self._expires = time.monotonic() + FRESH_SECONDS
            finally:
                self._asking.release()
        return self._found


def _fault(backend: Backend) -> str:
    """What is wrong with a model, "" if it answers."""
    try:
        backend.check(Deadline.after(CHECK_SECONDS))
    except OcrServingError as error:
        logger.warning("not ready: %s: %s", backend.role, error)
        return str(error)
    except Exception:
        logger.exception("not ready: %s", backend.role)
        return "The check failed; the log says why."
    return ""
