"""Log lines: as text for terminals or as JSON for collectors, written where they hold up nobody."""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import json
import logging
import os
import queue
import re
import stat
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Literal, TextIO

from ocr_serving import request_id

access = logging.getLogger("ocr_serving.access")
"""One line a request."""

LINES = 10_000
"""Lines that may wait for a slow reader of stderr; more are dropped."""
_FLUSH_SECONDS = 1.0
"""How long the end of the process waits for them."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(log_format: Literal["text", "json"]) -> None:
    """Let this process log to stderr, in place of what was configured before."""
    handler = BackgroundHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    _mute_c_libraries()
    _report_crashes()


@functools.cache
def _report_crashes() -> None:
    """Let the process say where it was when a signal such as SIGABRT or SIGSEGV ends it, once for the process.

    A full pipe takes no report, as waiting for a reader would keep a dead process from being replaced.
    """
    try:
        fd = sys.stderr.fileno()
        if stat.S_ISFIFO(os.fstat(fd).st_mode):  # opened anew, as others who write to it do wait
            with suppress(OSError):
                fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
        faulthandler.enable(fd)
    except (AttributeError, OSError, ValueError):  # there is no stderr
        return


@functools.cache
def _mute_c_libraries() -> None:
    """Let what C libraries print to stderr go nowhere, once for the process.

    libpng and libjpeg print what is odd about a client's image, and where nobody reads stderr they wait for ever, and
    with them the request. What C++ says before it aborts goes the same way; see _report_crashes().
    """
    libc = ctypes.CDLL(None)
    try:
        stream = ctypes.c_void_p.in_dll(libc, "stderr")
    except ValueError:  # another C library, where it is no variable
        return
    libc.fopen.restype = ctypes.c_void_p
    if nowhere := libc.fopen(os.devnull.encode(), b"w"):
        stream.value = nowhere


def fields(**values: object) -> dict[str, dict[str, object]]:
    """For a logging call's `extra`: values that a JSON line carries beside its message."""
    return {"fields": values}


class TextFormatter(logging.Formatter):
    """One line, its request's id at the end; a trace follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """See logging.Formatter; what came from outside cannot begin a line of its own."""
        line = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", super().formatMessage(record))
        identity = request_id.current()
        return f"{line} [{identity}]" if identity else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request_id, the call's fields, trace."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if identity := request_id.current():
            line["request_id"] = identity
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


class BackgroundHandler(logging.Handler):
    """Writes on a thread of its own: a full pipe or disk costs lines, never requests."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(LINES)
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            with suppress(queue.Full):
                self._lines.put_nowait(self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all lines are written, but not for long."""
        end = time.monotonic() + _FLUSH_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def close(self) -> None:
        """See logging.Handler."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                if self._stream is not None:
                    with suppress(OSError, ValueError):  # no reader, no room, closed: there is nowhere to say so
                        self._stream.write(f"{line}\n")
                        self._stream.flush()
            finally:
                self._lines.task_done()
