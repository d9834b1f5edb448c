"""An HTTP client that hides nothing: statuses, headers and times as they come, broken connections as status 0."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

from harness.traffic import in_threads

HOST = "127.0.0.1"
PATH = "/ocr/prediction"
"""Of the web service."""
DET_PATH = "/GeneralModelService/inference"
"""Of the model server."""
SECONDS = 90.0
"""After so long without an answer, a request hangs: status 0."""
JSON = {"Content-Type": "application/json"}
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
"""Of a request written by hand: further header lines and an empty line follow."""


@dataclass(frozen=True)
class Reply:
    """An answer; `seconds` from before the connection to the last byte."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        """The body; None if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def result(self) -> Any:
        """Of a prediction; None if it is an error."""
        return self.json.get("result") if isinstance(self.json, dict) else None

    @property
    def texts(self) -> Any:
        """Of a prediction for one image; None if it is an error."""
        return self.result.get("res") if isinstance(self.result, dict) else None

    @property
    def code(self) -> str:
        """Of an error, else empty."""
        found = self.json
        return found["error"]["code"] if isinstance(found, dict) and "error" in found else ""


def body(*files: bytes, fetch: Sequence[str] = ("res",)) -> bytes:
    """A request for image files."""
    feed = [{"x": base64.b64encode(file).decode("ascii")} for file in files]
    return json.dumps({"feed": feed, "fetch": list(fetch)}).encode()


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """A GET request on a connection of its own."""
    return _ask(_connection(port), "GET", path, None, headers or {})


def post(
    port: int, data: bytes, headers: Mapping[str, str] | None = None, path: str = PATH, timeout: float = SECONDS
) -> Reply:
    """A POST request on a connection of its own; JSON unless the headers say otherwise."""
    return _ask(_connection(port, timeout), "POST", path, data, {**JSON, **(headers or {})})


def send_all(
    port: int, bodies: Iterable[bytes], threads: int, headers: Mapping[str, str] | None = None, path: str = PATH
) -> list[Reply]:
    """Many POST requests over kept connections; the answers in the order of the bodies."""
    replies: dict[int, Reply] = {}
    turns: Iterator[tuple[int, bytes]] = enumerate(bodies)
    lock = threading.Lock()

    def run() -> None:
        connection = _connection(port)
        while True:
            with lock:
                turn = next(turns, None)
            if turn is None:
                break
            replies[turn[0]] = _ask(connection, "POST", path, turn[1], {**JSON, **(headers or {})}, keep=True)
        connection.close()

    in_threads([run] * threads)
    return [replies[i] for i in sorted(replies)]


def statuses(replies: Iterable[Reply]) -> dict[int, int]:
    """How many of each."""
    return dict(Counter(reply.status for reply in replies))


def raw(port: int, *parts: bytes, seconds: float = 5.0, end: bool = False) -> bytes:
    """What comes back for bytes on a connection until the server closes it or the time is up.

    Args:
        port: of the server.
        parts: sent one after the other.
        seconds: to wait.
        end: close the sending side after the last part.
    """
    answer = bytearray()
    deadline = time.monotonic() + seconds
    with suppress(OSError), socket.create_connection((HOST, port), 5) as connection:
        for part in parts:
            connection.sendall(part)
        if end:
            connection.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            data = connection.recv(65536)
            if not data:
                break
            answer += data
    return bytes(answer)


def raw_statuses(answer: bytes) -> list[int]:
    """The statuses of all answers in the bytes."""
    return [int(part[3:6]) for part in answer.split(b"HTTP/1")[1:] if part[3:6].isdigit()]


class Repeated:
    """Does something over and over while a block runs: in so many threads, each after a pause in seconds."""

    def __init__(self, act: Callable[[], object], threads: int = 1, pause: float = 0.0) -> None:
        self._act = act
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Repeated:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self._act()


def _connection(port: int, timeout: float = SECONDS) -> HTTPConnection:
    return HTTPConnection(HOST, port, timeout=timeout)


def _ask(
    connection: HTTPConnection,
    method: str,
    path: str,
    data: bytes | None,
    headers: Mapping[str, str],
    keep: bool = False,
) -> Reply:
    begin = time.monotonic()
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # a refused body is not read to its end
            connection.request(method, path, data, dict(headers))
        answer = connection.getresponse()
        content = answer.read()
        return Reply(answer.status, dict(answer.headers), content, time.monotonic() - begin)
    except (OSError, HTTPException):
        connection.close()
        return Reply(0, seconds=time.monotonic() - begin)
    finally:
        if not keep:
            connection.close()
