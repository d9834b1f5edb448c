"""Reading HTTP requests: waitress's parser, made stricter where proxies may read a request otherwise, and bounded."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from waitress.parser import HTTPRequestParser, TransferEncodingNotImplemented
from waitress.utilities import Error

from ocr_serving.errors import BadInput, OcrServingError
from ocr_serving.server.pace import LEAST_RATE
from ocr_serving.web import errors

FRAMING = 64 * 1024
"""Bytes that a chunked body's framing may take beyond as many as its data: one-byte chunks, endless size lines and
endless trailers keep the parser busy for nothing."""
PATIENCE_SECONDS = 30.0
"""In each of them a sender must come to LEAST_RATE on the average."""
LOOK_EVERY = 256 * 1024
"""Bytes of a body between two looks whether there is room, each of which goes through all connections."""

_PIECE = 4096
"""Bytes of a chunked body parsed at once; waitress copies the rest at every chunk."""
_METHOD = re.compile(rb"[A-Z]|\Z")
_FOLDED = re.compile(rb"\r\n[ \t]")
_TRANSFER_ENCODING = re.compile(rb"(?im)^transfer-encoding:[ \t]*([^\r\n]*?)[ \t]*\r?$")
_ONLY_CHUNKED = "Transfer-Encoding must be chunked, once."


class Refused(Error):  # type: ignore[misc]
    """An error of ours in the place of one of waitress's."""

    def __init__(self, error: OcrServingError) -> None:
        super().__init__(str(error))
        self.code = error.status
        self.reason = HTTPStatus(error.status).phrase
        self.error = error


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """One request as it comes in.

    Attributes:
        fault: why it is refused though waitress would take it.
    """

    fault: OcrServingError | None
    error: Error | None = None

    def __init__(
        self,
        adj: Any,
        max_body_bytes: int,
        no_room: Callable[[], OcrServingError | None],
        fault: OcrServingError | None = None,
    ) -> None:
        """
        Args:
            adj: waitress's settings.
            max_body_bytes: largest body, without the framing of chunks.
            no_room: what to answer if no more of this request can be held now, None if it can.
            fault: why it is refused whatever comes.
        """
        super().__init__(adj)
        self.fault = fault
        self._max_body_bytes = max_body_bytes
        self._no_room = no_room
        self._next_look = 0
        self._window = time.monotonic(), 0  # when it began, and the bytes that had come then

    def is_stalled(self) -> bool:
        """Whether the sender is too slow to be waited for; to be asked again and again."""
        began, before = self._window
        now, received = time.monotonic(), int(self.header_bytes_received + self.body_bytes_received)
        if now - began < PATIENCE_SECONDS:
            return False
        self._window = now, received
        return received - before < PATIENCE_SECONDS * LEAST_RATE

    def received(self, data: bytes) -> int:
        """See HTTPRequestParser: takes bytes, returns how many."""
        begins = self._is_before_method()
        blank = len(data) - len(data.lstrip(b"\r\n")) if begins else 0
        if self.fault is not None:
            taken = len(data)
        elif blank:  # waitress takes two line ends for an empty request: of thousands it would make thousands
            taken = blank
        elif begins and not _METHOD.match(data):
            self.fault = BadInput("This is not HTTP; TLS, if wanted, is for a proxy in front.")
            taken = len(data)
        elif self.chunked and self.body_rcv is not None:
            taken = super().received(data[:_PIECE])
            self._check_chunks(len(self.body_rcv))
        else:
            taken = super().received(data)
            if self.content_length > self._max_body_bytes:
                self.fault = self.fault or errors.body_too_large(self._max_body_bytes)
        if self.body_rcv is not None and self.body_bytes_received >= self._next_look:
            self._next_look = self.body_bytes_received + LOOK_EVERY
            self.fault = self.fault or self._no_room()
        if self.fault is not None:
            self.error = Refused(self.fault)
            self.completed = True
        if self.completed:
            self.expect_continue = False  # or waitress asks for the body of a request that it has refused
        return int(taken)

    def parse_header(self, header_plus: bytes) -> None:
        """See HTTPRequestParser."""
        try:
            super().parse_header(header_plus)
        except TransferEncodingNotImplemented:  # waitress would answer 501, as if the fault were ours
            self.fault = BadInput(_ONLY_CHUNKED)
            return
        if self.version not in ("1.0", "1.1"):
            self.fault = BadInput("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        elif _FOLDED.search(header_plus):
            self.fault = BadInput("A header goes on in the next line.")
        elif encodings := _TRANSFER_ENCODING.findall(header_plus):
            if self.version == "1.0" or "CONTENT_LENGTH" in self.headers:
                self.fault = BadInput("Transfer-Encoding cannot stand beside Content-Length, nor in HTTP/1.0.")
            elif [encoding.lower() for encoding in encodings] != [b"chunked"]:
                self.fault = BadInput(_ONLY_CHUNKED)

    def _is_before_method(self) -> bool:
        """Whether nothing has come yet but the line ends that may stand before a request."""
        return self.body_rcv is None and not self.completed and not self.header_plus

    def _check_chunks(self, data: int) -> None:
        """Look for a fault in a chunked body of which so many bytes of data have come."""
        if data > self._max_body_bytes:
            self.fault = errors.body_too_large(self._max_body_bytes)
        elif self.body_bytes_received - data > data + FRAMING:
            self.fault = BadInput("The chunks of the body are too small, or a line between them is too long.")
