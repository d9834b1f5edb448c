"""The services under test, started by the commands that a user types, on free ports, and stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from harness.images import ROOT
from harness.web import ChainedClient, Client, WebClient
from ocr_serving import zoo
from ocr_serving.web_client import URL

START_SECONDS = 120
STOP_SECONDS = 20
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Models:
    """The model folders of a family."""

    family: str
    det: Path
    rec: Path

    @classmethod
    def fetch(cls, family: str = "ppocrv6_small") -> Models:
        """The models of the zoo that are named {family}_det and {family}_rec, downloaded where they are missing."""
        folders = [zoo.fetch(f"{family}_{kind}", zoo.cache_dir(), zoo.load()).resolve() for kind in ("det", "rec")]
        return cls(family, *folders)

    @property
    def megabytes(self) -> float:
        """Size of both folders."""
        files = [file for folder in (self.det, self.rec) for file in folder.iterdir()]
        return round(sum(file.stat().st_size for file in files) / 1e6, 1)

    @property
    def settings(self) -> dict[str, str]:
        """The settings that name them."""
        return {"det_model": str(self.det), "rec_model": str(self.rec)}


@dataclass(frozen=True)
class Running:
    """A service that accepts requests.

    Attributes:
        connect: opens a connection to it.
        started: name -> process, of those that were started here.
        det_endpoint, rec_endpoint: of its model servers; empty where the models run in the web process.
    """

    connect: Callable[[], Client]
    started: Mapping[str, subprocess.Popen[bytes]]
    det_endpoint: str = ""
    rec_endpoint: str = ""

    @property
    def processes(self) -> dict[str, psutil.Process]:
        """Name -> process; what the web service started for itself is "rec", a model server of its own."""
        found = {name: psutil.Process(process.pid) for name, process in self.started.items()}
        children = {f"rec {child.pid}": child for parent in found.values() for child in parent.children(recursive=True)}
        return found | (dict(zip(["rec"], children.values(), strict=True)) if len(children) == 1 else children)


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in held]


@contextmanager
def rpc_service(models: Models) -> Iterator[Running]:
    """The det model server and the web service that calls it; rec runs in a model server of the web service's own."""
    det_port, rec_port = free_ports(2)
    settings = {**models.settings, "det_endpoint": f"{HOST}:{det_port}", "worker_port": str(rec_port)}
    serve = ["-m", "paddle_serving_server.serve", "--model", str(models.det), "--port", str(det_port)]
    with ExitStack() as stack:
        det = stack.enter_context(_command(serve, det_port, settings))
        connect, web = stack.enter_context(_web("ocr_web_server.py", settings))
        yield Running(connect, {"web": web, "det": det}, settings["det_endpoint"], f"{HOST}:{rec_port}")


@contextmanager
def model_server(model: Path) -> Iterator[str]:
    """A model server of that folder by itself; the value is its address."""
    (port,) = free_ports(1)
    with _command(["-m", "paddle_serving_server.serve", "--model", str(model), "--port", str(port)], port, {}):
        yield f"{HOST}:{port}"


@contextmanager
def in_process_service(models: Models) -> Iterator[Running]:
    """The web service with both models in its process."""
    with _web("ocr_debugger_server.py", models.settings) as (connect, web):
        yield Running(connect, {"web": web})


@contextmanager
def chained_service(models: Models) -> Iterator[Running]:
    """One model server that reads whole images, without a web service."""
    (port,) = free_ports(1)
    serve = ["-m", "paddle_serving_server.serve", "--model", str(models.det), str(models.rec)]
    chain = ["--op", "GeneralDetectionOp", "GeneralInferOp", "--port", str(port)]
    with _command([*serve, *chain], port, {}) as server:
        confs = [zoo.client_dir(folder) for folder in (models.det, models.rec)]
        yield Running(partial(ChainedClient, f"{HOST}:{port}", confs), {"server": server})


SERVICES: Mapping[str, Callable[[Models], AbstractContextManager[Running]]] = {
    "RPC": rpc_service,
    "in-process": in_process_service,
    "chained": chained_service,
}
"""What stages, load and start measure; one line each."""


@contextmanager
def _web(door: str, settings: Mapping[str, str]) -> Iterator[tuple[Callable[[], Client], subprocess.Popen[bytes]]]:
    (port,) = free_ports(1)
    with _command([str(ROOT / door), "cpu", "--port", str(port)], port, settings) as process:
        yield partial(WebClient, f"http://{HOST}:{port}{urlsplit(URL).path}"), process


@contextmanager
def _command(arguments: Sequence[str], port: int, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A Python command that listens on the port, ended at the end of the block; its settings go by the environment."""
    environment = os.environ | {f"OCR_{name.upper()}": value for name, value in settings.items()}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for_port(process, port)
            yield process
        except BaseException:
            if process.poll() is not None:  # what it said is likely to be why the benchmark failed
                output.seek(0)
                sys.stderr.write(output.read().decode(errors="replace"))
            raise
        finally:
            _stop(process)


def _wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Return once the process accepts connections.

    Raises:
        RuntimeError: it ended, or did not within START_SECONDS.
    """
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError("A service did not start.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
