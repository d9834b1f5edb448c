"""The life of a model server process: load, serve, drain, end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

from ocr_serving import logs
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.server.listener import ModelServer
from ocr_serving.server.service import ModelService, ServedModel
from ocr_serving.settings import Settings, usable_cores

LEAST_THREADS = 4
"""Default of the original's --thread."""
GRACE_SECONDS = 10.0
"""How long accepted requests may take to finish once the process is told to end."""
_NAP_SECONDS = 0.5
"""Python notices a signal that comes just before it waits for something only when the wait is over."""


def default_threads() -> int:
    """Requests worked on at once: one a core, so that an engine's sessions are never short of work."""
    return max(LEAST_THREADS, usable_cores())


def set_up() -> None:
    """Log to stderr, and end on SIGTERM as on Ctrl-C."""
    logs.configure("text")
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def run(
    model: str,
    listener: socket.socket,
    settings: Settings,
    threads: int,
    ready: Callable[[LocalPredictor, str], None],
) -> None:
    """Serve a model folder until SIGINT or SIGTERM, then answer what was accepted; a second signal ends at once.

    Args:
        model: the folder.
        listener: a bound socket; clients are refused until the model is loaded.
        settings: of the engine.
        threads: requests worked on at once.
        ready: called with the predictor and the address once clients are accepted.

    Raises:
        ConfigError: the model, the engine or the device cannot be used, or the port was taken.
        KeyboardInterrupt: a signal came before the server was up.
    """
    logs.configure(settings.log_format)
    predictor = LocalPredictor.load(model, settings)
    folder = predictor.model
    service = ModelService({folder.name: ServedModel(predictor, folder.feeds, folder.fetches)})
    server = ModelServer(service, listener, threads)
    server.start()
    try:
        ready(predictor, server.address)
        while True:
            time.sleep(_NAP_SECONDS)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, end_at_once)
        signal.signal(signal.SIGINT, end_at_once)
    if server.stop(GRACE_SECONDS):
        service.close()
    else:
        end_at_once(0)  # an engine is still at work, and the interpreter would wait for it


def end_at_once(number: int, _: FrameType | None = None) -> None:
    """End without waiting for anything; as a signal handler, with the status that a shell gives to that signal."""
    sys.stdout.flush()
    os._exit(128 + number if number else 0)
