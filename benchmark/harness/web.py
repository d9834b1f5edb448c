"""Clients that know where the time of a request goes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from ocr_serving.compat.client import Client as RpcClient
from ocr_serving.errors import OcrServingError

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


class ChainedClient:
    """Talks to the server with det and rec chained, as ocr_cpp_client.py does. See Client.

    Both transfers are in first_byte, as the library tells no more.
    """

    def __init__(self, address: str, confs: Sequence[Path]) -> None:
        """
        Args:
            address: "host:port".
            confs: the client folders of det and of rec.
        """
        self._client = RpcClient(raise_on_error=True)
        self._client.load_client_config([str(conf) for conf in confs])
        self._client.connect([address])

    def body(self, file: Path) -> bytes:
        """See Client.body."""
        return base64.b64encode(file.read_bytes())

    def ask(self, body: bytes) -> Answer:
        """See Client.ask."""
        begin = time.perf_counter()
        try:
            answer = self._client.predict(feed={"x": body.decode("ascii")}, fetch=["res"], batch=True)
        except OcrServingError as error:
            raise Refused(error.status, str(error).encode()) from error
        return Answer(answer["res"].tolist(), time.perf_counter() - begin, 0.0, {})

    def close(self) -> None:
        """See Client.close."""
        self._client.release()


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
