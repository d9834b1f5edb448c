"""A model server in a process of its own, started again when it dies and gone when its owner is."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ocr_serving import endpoint
from ocr_serving.errors import ConfigError, OcrServingError, UpstreamUnavailable
from ocr_serving.server import supervised
from ocr_serving.settings import PREFIX, Settings

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
"""The server is its owner's alone."""
PORTS = 1000
"""How many ports are tried from settings.worker_port on, as the original does."""
START_SECONDS = 120.0
"""How long a server may take to load its model."""
STOP_SECONDS = 15.0
"""How long it may take to end when told to, its own grace included; then it is killed."""
STEADY_SECONDS = 30.0
"""A server that lived so long was well: its end begins a new count of failures."""
LOOP_FAILURES = 4
"""So many deaths and failed starts in a row are a crash loop: clients are refused until a server is up again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a new start: none after the first failure, then FIRST_PAUSE, then each time twice as long."""


class ModelServerProcess:
    """One model served by a child process on a port of its own.

    The port is bound here and handed down. It stays open while a dead child is replaced, so that clients wait for the
    next one and are not refused.

    Attributes:
        restarts: how many children died that were, or are to be, replaced.
        failure: in a crash loop, what happens, as a sentence; None while all is well.
        engine, precision: what the model runs on; known once start() has returned.
    """

    def __init__(self, model: str | Path, settings: Settings) -> None:
        """Know what to serve; nothing runs before start().

        Args:
            model: the model folder.
            settings: of the engine; worker_port is the first port tried.
        """
        self.restarts = 0
        self.failure: str | None = None
        self.engine = self.precision = ""
        self._model = Path(model)
        self._settings = settings
        self._listener: socket.socket | None = None
        self._port = 0
        self._lock = threading.Lock()  # between replacing the child and stopping for good
        self._child: _Child | None = None
        self._stopping = threading.Event()
        self._owner = os.getpid()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    @property
    def endpoint(self) -> str:
        """Where the server listens, "host:port"; the same for as long as this object lives."""
        return f"{HOST}:{self._port}"

    def start(self) -> str:
        """Start the server and wait until it answers; returns the endpoint.

        Raises:
            ConfigError: the model cannot be served, or no port is free.
            UpstreamUnavailable: the server died or did not get ready.
        """
        try:
            first = self._settings.worker_port
            self._port = self._take_port(range(first, min(first + PORTS, 65536)))
            self._launch()
        except BaseException:
            self.stop()
            raise
        self._watcher.start()
        return self.endpoint

    def check(self) -> None:
        """Raise UpstreamUnavailable if the server is in a crash loop."""
        if self.failure is not None:
            raise UpstreamUnavailable(self.failure)

    def stop(self) -> None:
        """End the server, which answers what it has accepted; nothing is started any more.

        Without effect in a process that the owner forked: the owner would start another one.
        """
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._stopping.set()
        if self._child is not None:
            self._child.stop()
        if self._watcher.is_alive():
            self._watcher.join()
        self._close_port()

    def _watch(self) -> None:
        """Replace the child whenever it ends; where no other could be started, it is found ended again."""
        ended: _Child | None = None
        failures = 0
        while (child := self._child) is not None:
            began = time.monotonic()
            status = child.wait()
            if self._stopping.is_set():
                return
            if child is not ended:
                self.restarts += 1
                logger.error("The model server of %s ended with status %d; a new one starts.", self._model, status)
            ended = child
            failures = 1 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            pause = 0.0 if failures == 1 else min(FIRST_PAUSE * 2 ** (failures - 2), LONGEST_PAUSE)
            if failures >= LOOP_FAILURES:
                self._report_loop(failures)
            if self._stopping.wait(pause):
                return
            try:
                self._launch()
            except (OcrServingError, OSError) as error:
                logger.error("The model server of %s cannot be started: %s", self._model, error)
            else:
                self.failure = None

    def _report_loop(self, failures: int) -> None:
        self._close_port()
        what = f"died, or did not start, {failures} times in a row"
        self.failure = f"The model server of {self._model.name} {what}; the log says more."
        logger.error(self.failure)

    def _launch(self) -> None:
        """Start a child and wait until it is ready."""
        if self._listener is None:
            self._take_port([self._port])
        with self._lock:
            if self._stopping.is_set() or self._listener is None:
                return
            self._child = _Child(self._model, self._listener, _environment(self._settings))
        self.engine, self.precision = self._child.wait_until_ready()

    def _take_port(self, ports: range | list[int]) -> int:
        """Listen on the first free port.

        Raises:
            ConfigError: all are taken.
        """
        for port in ports:
            try:
                listener = endpoint.bind(HOST, port)
            except ConfigError:
                continue
            try:
                listener.listen()
            except OSError:  # bound by two, and the other one was first to listen
                listener.close()
                continue
            self._listener = listener
            return port
        raise ConfigError(f"No port from {ports[0]} to {ports[-1]} is free for the model server to be started.")

    def _close_port(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


class _Child:
    """One process of server.supervised."""

    def __init__(self, model: Path, listener: socket.socket, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            handed_down = (listener.fileno(), theirs.fileno())
            arguments = [sys.executable, "-m", supervised.__name__, str(model), *map(str, handed_down)]
            # In a session of its own, Ctrl-C in a terminal reaches the owner alone.
            self.process = subprocess.Popen(  # noqa: S603
                arguments, stdin=subprocess.DEVNULL, env=environment, pass_fds=handed_down, start_new_session=True
            )

    def wait_until_ready(self) -> tuple[str, str]:
        """Engine and precision, once the server answers.

        Raises:
            ConfigError: it says that it cannot start.
            UpstreamUnavailable: it died, or took too long and was killed.
        """
        self._control.settimeout(START_SECONDS)
        try:
            with self._control.makefile("rb") as lines:
                line = lines.readline().decode()
        except TimeoutError:
            self.process.kill()
            raise UpstreamUnavailable(f"The model server was not ready after {START_SECONDS:.0f} s.") from None
        if line.startswith(supervised.READY):
            engine, precision = line.removeprefix(supervised.READY).split()
            return engine, precision
        if line:
            raise ConfigError(line.rstrip())
        raise UpstreamUnavailable(f"The model server ended with status {self.process.wait()} while starting.")

    def wait(self) -> int:
        """Wait for the process's end; returns its exit status."""
        status = self.process.wait()
        self._control.close()
        return status

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("The model server did not end within %.0f s and is killed.", STOP_SECONDS)
            self.process.kill()
        self.wait()


def _environment(settings: Settings) -> dict[str, str]:
    """This process's environment with the settings in place of whatever OCR_* variables it has."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return kept | settings.replace(api_keys=()).environ()  # a child's clients are its owner alone
