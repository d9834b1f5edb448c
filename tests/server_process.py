"""Servers as real processes: started, waited for, stopped; their output is the message when something goes wrong."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120
STOP_SECONDS = 20
OUTPUT_SECONDS = 60


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class ServerProcess:
    """A running command; `port` is where it serves."""

    def __init__(self, command: Sequence[str], port: int, cwd: Path, stderr: int = subprocess.STDOUT) -> None:
        self.port = port
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *command], cwd=cwd, stdin=subprocess.DEVNULL, stdout=self._output, stderr=stderr
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ocr/prediction"

    @property
    def output(self) -> str:
        """What it has printed so far, both streams."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")  # the server shares the position

    def wait_for_output(self, text: str) -> None:
        """Return once it has printed the text (its log may be behind its answers); AssertionError if it does not."""
        deadline = time.monotonic() + OUTPUT_SECONDS
        while text not in self.output:
            assert time.monotonic() < deadline, f"it never said {text!r}:\n{self.output}"
            time.sleep(0.01)

    def wait_for_port(self) -> None:
        """Return once it accepts connections; AssertionError with its output if it ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.output}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.output}")

    def post(self, body: object, timeout: float = 60) -> requests.Response:
        """One request, as the original's clients make it."""
        return requests.post(self.url, json=body, timeout=timeout)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it and give its exit status; AssertionError with its output if it does not end."""
        self.process.send_signal(how)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop:\n{self.output}") from None
        finally:
            self._output.close()


@contextlib.contextmanager
def running(command: Sequence[str], port: int, cwd: Path, stderr: int = subprocess.STDOUT) -> Iterator[ServerProcess]:
    """A server that accepts connections, stopped at the end; stderr may be a file descriptor of its own."""
    server = ServerProcess(command, port, cwd, stderr)
    try:
        server.wait_for_port()
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def web(name: str, *flags: str, port: int | None = None) -> tuple[list[str], int]:
    """The command line of a front door on a free port, and the port."""
    port = port or free_port()
    return [str(ROOT / f"{name}_server.py"), "cpu", "--port", str(port), *flags], port


def model_server(model: str, port: int | None = None) -> tuple[list[str], int]:
    """The command line of a model server on a free port, and the port."""
    port = port or free_port()
    return ["-m", "paddle_serving_server.serve", "--model", model, "--port", str(port)], port
