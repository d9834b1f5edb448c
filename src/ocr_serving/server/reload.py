"""Models in service, loaded anew when one of their files is touched."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from ocr_serving.errors import OcrServingError
from ocr_serving.server.metrics import Metrics
from ocr_serving.server.service import ModelService
from ocr_serving.server.workflow import Workflow

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int] | None


class ReloadingService:
    """A workflow in service.

    Attributes:
        service: answers requests.
        loaded: the models that it has now.
    """

    def __init__(self, workflow: Workflow, metrics: Metrics, seconds: float) -> None:
        """Load the models.

        Args:
            workflow: names the models, and the files to look at.
            metrics: of the service.
            seconds: between two looks.

        Raises:
            ConfigError: a model cannot be loaded.
        """
        self._workflow = workflow
        self._seconds = seconds
        self._stamps = _stamps(workflow.reload_on)  # before loading, so that no touch goes unseen
        self.loaded = workflow.load()
        self.service = ModelService(self.loaded.models, metrics)
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="reload", daemon=True)

    def start(self) -> None:
        """Look at the files from now on, if there are any."""
        if self._workflow.reload_on:
            self._watcher.start()

    def stop(self, seconds: float) -> bool:
        """Load nothing more; returns whether what was being loaded is, within the time."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join(seconds)
        return not self._watcher.is_alive()

    def _watch(self) -> None:
        while not self._stopping.wait(self._seconds):
            stamps = _stamps(self._workflow.reload_on)
            touched = any(now is not None and now != then for now, then in zip(stamps, self._stamps, strict=True))
            self._stamps = stamps
            if touched:
                self._reload()

    def _reload(self) -> None:
        """Serve the models as they are on the disk now, or go on with the old ones and say why."""
        try:
            loaded = self._workflow.load(self.loaded)
        except OcrServingError as error:
            logger.error("The touched model cannot be served, so the one loaded before stays: %s", error)
        except Exception:
            logger.exception("The touched model cannot be served, so the one loaded before stays.")
        else:
            self.service.replace(loaded.models)
            self.loaded = loaded
            logger.info("Loaded anew: %s (%s)", loaded.title, loaded.engines)


def _stamps(files: Sequence[Path]) -> list[_Stamp]:
    """What changes when a file is touched or replaced; None for one that is not there."""
    return [_stamp(file) for file in files]


def _stamp(file: Path) -> _Stamp:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
