"""Log lines: one each, whatever is in them, and never in anybody's way."""

import io
import json
import logging
import signal
import subprocess
import sys
import threading

import image_files
import pytest
from rpc_peers import wait_until

from ocr_serving import logs, request_id


@pytest.fixture
def logger():
    """A logger whose lines go nowhere else."""
    made = logging.Logger("test")
    yield made
    for handler in made.handlers:
        handler.close()


def lines_of(logger, formatter, *calls):
    """What the calls write."""
    stream = io.StringIO()
    handler = logs.BackgroundHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    for call in calls:
        call()
    handler.flush()
    return stream.getvalue().splitlines()


HARM = "a\nERROR forged line\r\x1b[31m\u2028b"


def test_nothing_from_outside_begins_a_line_of_its_own(logger):
    [line] = lines_of(logger, logs.TextFormatter(), lambda: logger.info("path %s", HARM))
    assert r"path a\x0aERROR forged line\x0d\x1b[31m\x2028b" in line


def test_a_json_line_carries_id_and_fields(logger):
    def call():
        with request_id.working_on("id-1"):
            logger.warning("read %s", HARM, extra=logs.fields(status=200))

    [line] = lines_of(logger, logs.JsonFormatter(), call)
    found = json.loads(line)
    assert (found["level"], found["request_id"], found["status"]) == ("WARNING", "id-1", 200)
    assert found["message"] == f"read {HARM}"
    assert found["time"].endswith("+00:00")


def test_a_trace_is_part_of_its_json_line(logger):
    def call():
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logger.exception("broke")

    [line] = lines_of(logger, logs.JsonFormatter(), call)
    assert "ZeroDivisionError" in json.loads(line)["trace"]


def test_lines_without_a_request_have_no_id(logger):
    [text] = lines_of(logger, logs.TextFormatter(), lambda: logger.info("started"))
    assert text.endswith("started")


class Stuck(io.StringIO):
    """A stream whose reader has stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def write(self, text: str) -> int:
        assert self.release.wait(60)
        return super().write(text)


def test_a_reader_that_stopped_costs_lines_and_not_time(logger, monkeypatch):
    monkeypatch.setattr(logs, "LINES", 10)
    stream = Stuck()
    handler = logs.BackgroundHandler(stream)
    handler.setFormatter(logs.TextFormatter())
    logger.addHandler(handler)
    for i in range(50):
        logger.info("line %d", i)
    stream.release.set()
    handler.flush()
    assert 10 <= stream.getvalue().count("line") <= 11, "ten wait, and one is being written"


class Full(io.StringIO):
    """A disk without room."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [Full(), None])
def test_a_stream_that_takes_nothing_is_borne(logger, stream):
    handler = logs.BackgroundHandler(stream)
    logger.addHandler(handler)
    for _ in range(3):
        logger.info("line")
    wait_until(lambda: not handler._lines.unfinished_tasks)


FILL_STDERR = """
import os
_, full = os.pipe()
os.set_blocking(full, False)
try:
    while True:
        os.write(full, b"x")
except BlockingIOError:
    os.set_blocking(full, True)
os.dup2(full, 2)
"""
FULL_STDERR = f"""
import sys, threading
from ocr_serving import image, logs

logs.configure("text")
{FILL_STDERR}
threading.Timer(20, os._exit, [1]).start()
image.decode(sys.stdin.buffer.read(), 10_000_000)
os._exit(0)
"""


def test_an_odd_image_waits_for_no_reader_of_stderr():
    """libpng says "tRNS: invalid" of this one."""
    data = image_files.files()["png rgb"]
    odd = data[:33] + image_files.png_chunk(b"tRNS", b"") + data[33:]
    assert subprocess.run([sys.executable, "-c", FULL_STDERR], input=odd, timeout=60).returncode == 0


ABORT = """
import ctypes, resource
from ocr_serving import logs

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
logs.configure("text")

def computing():
    ctypes.CDLL("libstdc++.so.6")._ZSt9terminatev()  # as where an engine's own thread fails

computing()
"""


def test_a_process_that_aborts_says_where():
    ended = subprocess.run([sys.executable, "-c", ABORT], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGABRT
    assert "Aborted" in ended.stderr
    assert "in computing" in ended.stderr


def test_a_process_that_aborts_waits_for_no_reader_of_stderr():
    assert subprocess.run([sys.executable, "-c", FILL_STDERR + ABORT], timeout=60).returncode == -signal.SIGABRT
