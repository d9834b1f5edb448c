"""The life of a model server process: load, serve, drain, end."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ocr_serving import allocator, command_line, endpoint, logs, open_files
from ocr_serving.cores import usable_cores
from ocr_serving.deadline import Deadline
from ocr_serving.errors import ConfigError
from ocr_serving.server.limits import Limits
from ocr_serving.server.listener import ModelServer
from ocr_serving.server.metrics import Metrics
from ocr_serving.server.reload import ReloadingService
from ocr_serving.server.workflow import Loaded, Workflow
from ocr_serving.settings import Settings

logger = logging.getLogger(__name__)

LEAST_THREADS = 4
"""Default of the original's --thread."""
GRACE_SECONDS = 10.0
"""How long accepted requests may take to finish once the process is told to end."""
_FILES_A_CONNECTION = 3
"""Of gRPC: the client's socket, and two that join it to grpcio."""
_NAP_SECONDS = 0.5
"""Python notices a signal that comes just before it waits for something only when the wait is over."""


@dataclass(frozen=True)
class Plan:
    """What a model server process is to do.

    Attributes:
        workflow: what it serves.
        settings: where it listens and how it logs.
        threads: requests worked on at once.
        limits: bounds on clients.
        metrics_port: serves the metrics on a port of their own, too.
    """

    workflow: Workflow
    settings: Settings
    threads: int
    limits: Limits = field(default_factory=Limits)
    metrics_port: int | None = None


def default_threads() -> int:
    """Requests worked on at once: one a core, so that an engine's sessions are never short of work."""
    return max(LEAST_THREADS, usable_cores())


def serve(prepare: Callable[[], Plan], ready: Callable[[Loaded, str], None]) -> int:
    """What a command that serves on a port does, from its start to its end.

    Args:
        prepare: says what to serve; raises ConfigError where the command line makes no sense.
        ready: see run().

    Returns:
        The exit status: 0 once stopped, 2 where the message on stderr says why it could not start.
    """
    command_line.set_up()
    try:
        plan = prepare()
        with endpoint.bind(plan.settings.host, plan.settings.port) as listener:
            run(plan, listener, ready)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        pass  # while starting
    return 0


def run(plan: Plan, listener: socket.socket, ready: Callable[[Loaded, str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was accepted; a second signal ends at once.

    Args:
        plan: what to serve.
        listener: a bound socket; clients are refused until the models are loaded.
        ready: called with the models and the address once clients are accepted.

    Raises:
        ConfigError: a model, an engine or the device cannot be used, or a port was taken.
        KeyboardInterrupt: a signal came before the server was up.
    """
    logs.configure(plan.settings.log_format)
    allocator.keep_freed()
    allocator.reserve_for_products()
    metrics = Metrics()
    if plan.metrics_port is not None:
        metrics.listen(plan.settings.host, plan.metrics_port)
    models = ReloadingService(plan.workflow, metrics, plan.settings.reload_interval)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # again: importing paddle puts its own there
    server = ModelServer(models.service, listener, plan.threads, _within_files(plan.limits))
    server.start()
    try:
        models.start()
        ready(models.loaded, server.address)
        if not endpoint.is_loopback(endpoint.parse(server.address)[0]):
            logger.warning("The model server listens on %s and has no keys: who reaches it can use it.", server.address)
        while True:
            time.sleep(_NAP_SECONDS)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, command_line.end_at_once)
        signal.signal(signal.SIGINT, command_line.end_at_once)
    deadline = Deadline.after(GRACE_SECONDS)
    drained = server.stop(deadline.remaining())
    if models.stop(deadline.remaining()) and drained:
        models.service.close()
    else:
        logger.warning("Not all requests could be answered within %g s.", GRACE_SECONDS)
        logging.shutdown()
        command_line.end_at_once(0)  # an engine is still at work, and the interpreter would wait for it


def _within_files(limits: Limits) -> Limits:
    """The limits, with no more connections than the process may open files for."""
    files = open_files.allow(limits.connections * _FILES_A_CONNECTION + open_files.OTHERS)
    return replace(limits, connections=max(1, (files - open_files.OTHERS) // _FILES_A_CONNECTION))
