"""Clients that know where the time of a request goes."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

REQUEST_SECONDS = 120
IDLE_SECONDS = 10.0
"""After so long a new connection is made: servers hang up on idle ones (ours after 30 s)."""


class Refused(RuntimeError):
    """The service answered with another status than 200; `status` says which."""

    def __init__(self, status: int, answer: bytes) -> None:
        super().__init__(f"The service answered {status}: {answer[:200]!r}")
        self.status = status


@dataclass(frozen=True)
class Answer:
    """The texts of one image, and the seconds of each part of the request.

    Attributes:
        texts: lines in reading order.
        first_byte: from the first byte sent to the status line and headers received.
        rest: from there to the answer read and parsed.
        server: stage -> seconds, as the answer's Server-Timing header says; empty without one.
    """

    texts: list[str]
    first_byte: float
    rest: float
    server: dict[str, float]


class Client(Protocol):
    """One kept connection to a service; used by one thread at a time."""

    def body(self, file: Path) -> bytes:
        """An image file as a request."""
        ...

    def ask(self, body: bytes) -> Answer:
        """Send one request.

        Raises:
            Refused: the service did.
            OSError, HTTPException: there is no service, or it left.
        """
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class WebClient:
    """Talks to a web service. See Client."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=REQUEST_SECONDS)
        self._last_used = time.monotonic()

    def body(self, file: Path) -> bytes:
        """See Client.body."""
        image = base64.b64encode(file.read_bytes()).decode("ascii")
        return json.dumps({"feed": [{"x": image}], "fetch": ["res"]}).encode()

    def ask(self, body: bytes) -> Answer:
        """See Client.ask."""
        if time.monotonic() - self._last_used > IDLE_SECONDS:
            self._connection.close()  # request() connects again
        begin = time.perf_counter()
        self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        reply = self._connection.getresponse()
        headers_in = time.perf_counter()
        answer = reply.read()
        self._last_used = time.monotonic()
        if reply.status != HTTPStatus.OK:
            raise Refused(reply.status, answer)
        texts = json.loads(answer)["result"]["res"]
        end = time.perf_counter()
        return Answer(texts, headers_in - begin, end - headers_in, server_timing(reply.headers.get("Server-Timing")))

    def close(self) -> None:
        """See Client.close."""
        self._connection.close()


def server_timing(header: str | None) -> dict[str, float]:
    """Metric -> seconds of a header such as "det_infer;dur=31.5, total;dur=40" (W3C Server Timing, in milliseconds)."""
    stages = {}
    for metric in (header or "").split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "dur":
                stages[name] = float(value) / 1000
    return stages
