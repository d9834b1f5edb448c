"""One client's bRPC connection: frames read one after the other, answered as they finish.

    reader thread -> Workers (shared) -> writer thread

The reader hands requests on without waiting for answers, so a client may have several under way; the writer alone
touches the sending side, so a client that does not read holds up nobody else.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue

from ocr_serving import endpoint, request_id
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, NotFound, OcrServingError, TooLarge
from ocr_serving.server import faults, general_model
from ocr_serving.server.limits import Limits
from ocr_serving.server.pace import Pace
from ocr_serving.server.service import ModelService
from ocr_serving.server.workers import Workers
from ocr_serving.wire import compression, frame, messages, meta
from ocr_serving.wire.fields import Buffer
from ocr_serving.wire.frame import Frame

logger = logging.getLogger(__name__)

_PROTOCOL = "brpc"
"""In metrics."""


class BrpcConnection:
    """Serves GeneralModelService on a connected socket. See protocols.Connection."""

    def __init__(self, sock: socket.socket, service: ModelService, workers: Workers, limits: Limits) -> None:
        self._sock = sock
        self._service = service
        self._workers = workers
        self._limits = limits
        self._address = endpoint.of_socket(sock)
        self._slots = threading.Semaphore(limits.pipelined)
        self._pending: set[Future[None]] = set()
        self._answers: SimpleQueue[Sequence[Buffer] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_answers, name="brpc-writer", daemon=True)
        self._mute = False
        self._last_answer = time.monotonic()
        self._writer.start()

    def serve(self) -> None:
        """Answer requests until the client leaves, stalls or sends what is no frame."""
        try:
            while (request := self._read()) is not None:
                if not request.meta.HasField("request"):
                    raise BadInput("The frame holds no request.")
                self._slots.acquire()
                if self._mute:  # shut down, yet what had come before can still be read
                    return
                self._accept(request)
        except (OSError, BadInput) as error:
            logger.info("Connection closed: %s", error)
        finally:
            for future in list(self._pending):
                if future.cancel():
                    self._service.metrics.left(_PROTOCOL)
            self._cut()
            self.finish(self._limits.send_seconds)

    def finish(self, seconds: float) -> None:
        """Write the answers that are ready, then no more; returns when that is done or the time is up."""
        self._answers.put(None)
        self._writer.join(seconds)

    def _read(self) -> Frame | None:
        """The next frame; None where the client left."""
        pace = Pace(self._limits.idle_seconds)

        def recv_into(buffer: memoryview) -> int:
            count = self._recv_into(buffer)
            pace.received(count)
            return count

        return frame.read(recv_into, self._limits.body_bytes)

    def _accept(self, request: Frame) -> None:
        """Put the request in line, or say why not."""
        timeout_ms = request.meta.request.timeout_ms
        deadline = Deadline.after(timeout_ms / 1000) if timeout_ms > 0 else None
        arrival = time.monotonic()
        try:
            future = self._workers.submit(lambda: self._answers.put(self._answer(request, deadline, arrival)))
        except OcrServingError as error:
            self._service.metrics.refused(_PROTOCOL, error)
            self._answers.put(self._refuse(request, error))
            return
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

    def _answer(self, request: Frame, deadline: Deadline | None, arrival: float) -> list[Buffer]:
        """The answer's frame; errors are answers, too."""
        with request_id.working_on(request_id.accept(request.meta.request.request_id)):
            try:
                with self._service.metrics.request(_PROTOCOL, arrival):
                    if deadline is not None:
                        deadline.check("while it waited for a free thread")
                    answer = self._infer(request, deadline)
                    return frame.encode(meta.for_success(request.meta.correlation_id), answer)
            except Exception as error:
                return self._refuse(request, faults.to_answer(error))

    def _infer(self, request: Frame, deadline: Deadline | None) -> list[Buffer]:
        call = request.meta.request
        if call.service_name not in (meta.SERVICE, meta.SHORT_SERVICE) or call.method_name not in meta.METHODS:
            raise NotFound(f"Fail to find method={call.service_name}/{call.method_name}")
        message = _parse(request, self._limits.body_bytes)
        return general_model.answer(self._service, message, deadline, messages.encode_response)

    def _refuse(self, request: Frame, error: OcrServingError) -> list[Buffer]:
        return frame.encode(meta.for_error(request.meta.correlation_id, error, self._address))

    def _write_answers(self) -> None:
        try:
            while (answer := self._answers.get()) is not None:
                frame.write(self._sock.sendmsg, answer)
                self._last_answer = time.monotonic()
                self._slots.release()
        except OSError as error:
            logger.info("Answer not taken: %s", error)
            self._cut()
        finally:
            self._mute = True
            self._slots.release()  # the reader may wait for one

    def _cut(self) -> None:
        """Let what is being read or written fail at once."""
        with suppress(OSError):  # the client was first
            self._sock.shutdown(socket.SHUT_RDWR)

    def _recv_into(self, buffer: memoryview) -> int:
        while True:
            try:
                return self._sock.recv_into(buffer)
            except BlockingIOError:
                idle = time.monotonic() - self._last_answer
                if not self._pending and idle >= self._limits.idle_seconds:
                    raise TimeoutError(f"nothing came for {idle:.0f} s") from None


def _parse(request: Frame, limit: int) -> messages.Request:
    """The request's message; where it is none, the sentence is brpc's."""
    payload, packed = request.message(), request.meta.compress_type
    try:
        return messages.decode_request(compression.decompress(payload, packed, limit))
    except TooLarge:
        raise
    except BadInput as error:
        name = compression.name(packed)
        sentence = f"Fail to parse request message, CompressType={name}, request_size={len(payload)}"
        raise BadInput(sentence) from error
