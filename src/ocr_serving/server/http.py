"""HTTP requests and answers as the routes see them, without the connection they travel on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import cramjam

from ocr_serving.errors import BadInput, OcrServingError
from ocr_serving.wire import compression
from ocr_serving.wire.fields import Buffer, size

_ENCODINGS = {"": compression.NONE, "identity": compression.NONE, "gzip": compression.GZIP, "deflate": compression.ZLIB}
_LEAST_GZIPPED = 512
"""Bytes; brpc compresses no smaller body."""
_GZIP_LEVEL = 1
"""Of arrays of numbers, higher levels save a few percent for several times the time."""


@dataclass(frozen=True)
class HttpRequest:
    """A request that has arrived in full.

    Attributes:
        method: "GET", "POST" ...
        path: without the query.
        headers: name in lower case -> value.
        body: as sent; see content().
        has_left: whether the client closed the connection.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Buffer
    has_left: Callable[[], bool]

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; "" where the client sent none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def takes_gzip(self) -> bool:
        """Whether the answer may be gzipped."""
        codings = self.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
        return any(name == "gzip" and weight != "q=0" for name, _, weight in (c.partition(";") for c in codings))

    def content(self, limit: int) -> memoryview:
        """The body without its Content-Encoding.

        Raises:
            BadInput: an unknown encoding, or damaged data.
            TooLarge: more than `limit` bytes inside.
        """
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise BadInput("The Content-Encoding is not supported; use gzip, deflate or none.")
        return compression.decompress(self.body, _ENCODINGS[encoding], limit)


@dataclass(frozen=True)
class HttpAnswer:
    """An answer; Content-Length and what the connection needs are added when it is sent.

    Attributes:
        status: for example 200.
        content_type: of the body.
        body: sent one after the other.
        headers: further ones, in lower case.
    """

    status: int
    content_type: str
    body: Sequence[Buffer]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return size(self.body)

    def packed_for(self, request: HttpRequest) -> HttpAnswer:
        """This answer, gzipped where the client takes that and there is something to gain."""
        if not request.takes_gzip or self.length < _LEAST_GZIPPED:
            return self
        packed = bytes(cramjam.gzip.compress(b"".join(self.body), level=_GZIP_LEVEL))
        return replace(self, body=[packed], headers={**self.headers, "content-encoding": "gzip"})


class Route(Protocol):
    """What answers the requests to some paths. Thread-safe."""

    def answer(self, request: HttpRequest) -> HttpAnswer:
        """The answer; what it raises goes to refuse()."""
        ...

    def refuse(self, error: OcrServingError) -> HttpAnswer:
        """The answer to a request that failed."""
        ...
