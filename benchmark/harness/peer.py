"""Peers: OCR systems that read an image file and say how long they took."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Protocol

from harness.images import ROOT
from harness.lines import Read
from harness.services import Running
from harness.web import Refused
from ocr_serving.errors import OcrServingError


class PeerFailed(RuntimeError):
    """A peer did not start, ended or could not read an image."""


@dataclass(frozen=True)
class Reading:
    """The texts of one image, and the seconds from the bytes of its file to them."""

    seconds: float
    texts: list[str]


class Peer(Protocol):
    """Reads one image at a time."""

    def read(self, file: Path) -> Reading:
        """The texts of an image file.

        Raises:
            PeerFailed: it could not.
        """
        ...


class PeerProcess:
    """A worker script in an environment of its own: see harness.lines. See Peer."""

    def __init__(self, python: str, worker: str, arguments: Sequence[str]) -> None:
        """Start it and wait until its engine is loaded.

        Raises:
            PeerFailed: it ended before.
        """
        self._name = " ".join([worker, *arguments])
        self._process = subprocess.Popen(
            [python, str(ROOT / "benchmark" / worker), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._receive()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def read(self, file: Path) -> Reading:
        """See Peer.read."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(str(file.resolve())) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(f"{self._name} has ended; it said why above.") from None
        answer = self._receive()
        return Reading(answer["seconds"], answer["texts"])  # type: ignore[arg-type]

    def _receive(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"{self._name} has ended; it said why above.")
        answer: dict[str, object] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"{self._name}: {answer['error']}")
        return answer


class LocalPeer:
    """A reader in this process. See Peer."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def read(self, file: Path) -> Reading:
        """See Peer.read."""
        data = file.read_bytes()
        begin = time.perf_counter()
        try:
            texts = list(self._read(data))
        except OcrServingError as error:
            raise PeerFailed(f"{file.name}: {error}") from error
        return Reading(time.perf_counter() - begin, texts)


class WebPeer:
    """One of our web services; the time is that of the whole request. See Peer."""

    def __init__(self, service: Running, stack: ExitStack) -> None:
        self._client = stack.enter_context(closing(service.connect()))

    def read(self, file: Path) -> Reading:
        """See Peer.read."""
        file.read_bytes()  # in the cache, as it is for the others, whose clocks start after reading
        begin = time.perf_counter()
        try:
            answer = self._client.ask(self._client.body(file))
        except (Refused, OSError, HTTPException) as error:
            raise PeerFailed(f"The service failed: {error}") from error
        return Reading(time.perf_counter() - begin, answer.texts)
