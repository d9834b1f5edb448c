"""A model server that another process starts and owns: `python3 -m ocr_serving.server.supervised`.

It is handed a listening socket, so that no port can be lost between choosing and taking it, and one end of a control
socket: it writes there that it serves or why it cannot, and ends when the other end closes, however its owner died.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import NoReturn

from ocr_serving import command_line, logs, settings
from ocr_serving.errors import ConfigError
from ocr_serving.server import process
from ocr_serving.server.process import Plan
from ocr_serving.server.workflow import INFER, Loaded, Step, Workflow

READY = "ready "
"""What the control socket says once requests are answered, then engine and precision; every other line says why the
server cannot start."""


def main(model: str, listener_fd: str, control_fd: str) -> int:
    """Serve a model folder until told to end; the settings come from the environment. Returns the exit status."""
    command_line.set_up()
    logs.access.setLevel(logging.WARNING)  # the owner has a line for each request, and sends several for one of its own
    control = socket.socket(fileno=int(control_fd))
    threading.Thread(target=_end_with_owner, args=(control,), name="owner", daemon=True).start()

    def ready(loaded: Loaded, address: str) -> None:
        engine = loaded.predictors[0].engine
        control.sendall(f"{READY}{engine.name} {engine.precision}\n".encode())

    try:
        listener = socket.socket(fileno=int(listener_fd))
        chosen = settings.load()
        # Nothing is loaded anew while it serves: its owner has read the model's dictionary once and for all.
        workflow = Workflow([Step(INFER, Path(model), chosen)], chosen)
        process.run(Plan(workflow, chosen, process.default_threads()), listener, ready)
    except ConfigError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the owner sends as soon as it has read the line
        control.sendall(f"{error}\n".encode())
        return 2
    except KeyboardInterrupt:
        pass  # while starting
    return 0


def _end_with_owner(control: socket.socket) -> NoReturn:
    """Nobody else knows this server's port, so there is nothing to finish."""
    control.recv(1)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
