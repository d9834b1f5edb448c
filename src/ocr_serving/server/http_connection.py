"""One client's HTTP/1.1 connection: h11 understands the bytes, routes answer, one request after the other."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus

import h11

from ocr_serving.errors import BadInput, TooLarge
from ocr_serving.server import faults
from ocr_serving.server.http import HttpAnswer, HttpRequest, Route
from ocr_serving.server.http_routes import Routes
from ocr_serving.server.limits import Limits
from ocr_serving.server.pace import Pace
from ocr_serving.wire import frame

METHODS = ("GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH")
"""The methods that a connection may begin with."""

_RECEIVE = 256 * 1024
_FREE_CHUNKS, _LEAST_CHUNK = 1000, 16
"""How many chunks of a body may be of any size, and how many bytes further ones must have on the average: a chunk costs
as much work as 50 kB of data."""
_LINGER_SECONDS = 2.0
"""How long a client that was refused may go on sending: to close at once would destroy the answer on its way."""


class HttpConnection:
    """Serves routes on a connected socket. See protocols.Connection."""

    def __init__(self, sock: socket.socket, routes: Routes, limits: Limits) -> None:
        self._sock = sock
        self._routes = routes
        self._limits = limits
        self._http = h11.Connection(h11.SERVER)
        self._method = ""
        self._finishing = False
        self._quiet = threading.Event()
        self._quiet.set()

    def serve(self) -> None:
        """Answer requests until the client leaves, stalls or sends what is no HTTP."""
        try:
            while not self._finishing and self._serve_one():
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            hint = error.error_status_hint
            status = HTTPStatus(hint if hint < 500 else 400)  # 501 for an encoding, which is the client's fault, too
            refusal = self._routes.refuse(BadInput(f"The request is not valid HTTP: {status.phrase}."))
            self._turn_away(replace(refusal, status=status))

    def finish(self, seconds: float) -> None:
        """Let the answer under way be written; returns when that is done or the time is up."""
        self._finishing = True
        self._quiet.wait(seconds)

    def _serve_one(self) -> bool:
        """Answer one request; whether another one may follow."""
        head = self._read_head()
        if head is None:
            return False
        route = self._routes.find(head.path)
        try:
            request = self._read_body(head)
        except TooLarge as error:
            self._turn_away(route.refuse(error))
            return False
        self._quiet.clear()
        try:
            self._write(_answer(route, request))
        finally:
            self._quiet.set()
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def _read_head(self) -> HttpRequest | None:
        """The next request, its body still empty; None where the client leaves or stalls before it is there."""
        self._method = ""
        begin = time.monotonic()
        while (event := self._next_event()) is None:
            if time.monotonic() - begin > self._limits.idle_seconds:
                return None
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method.decode("ascii")
        if event.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("Neither HTTP/1.1 nor HTTP/1.0", 400)
        if event.method == b"CONNECT":
            raise h11.RemoteProtocolError("This server is no proxy", 400)
        headers = _headers(event)
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy in front may believe the other one of the two, and take the body for further requests.
            raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding", 400)
        path = event.target.decode("ascii").partition("?")[0]
        return HttpRequest(self._method, path, headers, b"", self._has_left)

    def _read_body(self, head: HttpRequest) -> HttpRequest:
        """The request with its body.

        Raises:
            TooLarge: it is larger than allowed; most of it has not been read.
            TimeoutError: it comes too slowly.
        """
        if int(head.headers.get("content-length", 0)) > self._limits.body_bytes:
            raise self._too_large()
        if self._http.they_are_waiting_for_100_continue:
            self._sock.sendall(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        body = bytearray()
        chunks = 0
        pace = Pace(self._limits.idle_seconds)
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            pace.received(len(event.data) if isinstance(event, h11.Data) else 0)
            if isinstance(event, h11.Data):
                body += event.data
                chunks += event.chunk_start
                if (chunks - _FREE_CHUNKS) * _LEAST_CHUNK > len(body):
                    raise h11.RemoteProtocolError("The chunks are too small", 400)
                if len(body) > self._limits.body_bytes:
                    raise self._too_large()
        return replace(head, body=memoryview(body))

    def _next_event(self) -> h11.Event | None:
        """The next event, or None where more bytes are needed, of which some have been received."""
        event = self._http.next_event()
        if isinstance(event, h11.Event):
            return event
        self._http.receive_data(self._sock.recv(_RECEIVE))
        return None

    def _write(self, answer: HttpAnswer) -> None:
        content_type = answer.content_type.encode("latin-1")  # it may be the request's, whatever that is
        headers = [(b"Content-Length", str(answer.length).encode()), (b"Content-Type", content_type)]
        headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        if self._finishing:
            headers.append((b"connection", b"close"))
        reason = HTTPStatus(answer.status).phrase
        head = self._http.send(h11.Response(status_code=answer.status, headers=headers, reason=reason))
        body = answer.body if self._method != "HEAD" else []
        for part in body:
            self._http.send_with_data_passthrough(h11.Data(data=part))  # type: ignore[arg-type]  # any buffer will do
        self._http.send(h11.EndOfMessage())
        frame.write(self._sock.sendmsg, [head, *body])

    def _turn_away(self, answer: HttpAnswer) -> None:
        """Answer a client whose request will not be read to its end, and end the connection."""
        self._write(replace(answer, headers={**answer.headers, "connection": "close"}))
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            end = time.monotonic() + _LINGER_SECONDS
            while (left := end - time.monotonic()) > 0:
                self._sock.settimeout(left)
                if not self._sock.recv(_RECEIVE):
                    return

    def _has_left(self) -> bool:
        try:
            return self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than the {self._limits.body_bytes} bytes allowed.")


def _answer(route: Route, request: HttpRequest) -> HttpAnswer:
    try:
        return route.answer(request)
    except ConnectionError:  # the client's: nobody is left to be answered
        raise
    except Exception as error:
        return route.refuse(faults.to_answer(error))


def _headers(request: h11.Request) -> dict[str, str]:
    """Name in lower case -> value; of a name that comes several times, the values are joined."""
    headers: dict[str, str] = {}
    for name, value in request.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
