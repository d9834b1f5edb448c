"""A web service that needs no model, on a real port: what it is told to do with a request, it does."""

import base64
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from ocr_serving import endpoint
from ocr_serving.settings import Settings
from ocr_serving.timings import Timings
from ocr_serving.web import serving
from ocr_serving.web.app import PATH, App, create_app
from ocr_serving.web.backend import Backend


def png(width: int, height: int) -> bytes:
    _, data = cv2.imencode(".png", np.full((height, width, 3), 255, np.uint8))
    return bytes(data)


def b64(width: int, height: int) -> str:
    return base64.b64encode(png(width, height)).decode()


def body(*sizes: tuple[int, int]) -> bytes:
    """A request with white images of these sizes; one by default."""
    feed = [{"x": b64(*size)} for size in sizes or [(30, 20)]]
    return json.dumps({"feed": feed, "fetch": []}).encode()


class StubService:
    """Answers the width of each image; `hold` makes requests wait, `calls` counts those that got here."""

    defaults = ("res",)
    extras = ("scores",)
    merges = True

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self.deadlines: list[float] = []
        self.hold = threading.Event()
        self.hold.set()

    def answer(self, sources, outputs, deadline=None, timings=None):
        timings = timings or Timings()
        self.calls += 1
        self.deadlines.append(deadline.remaining())
        with timings.stage("decode"):
            images = [source() for source in sources]
        with timings.stage("rec"):
            time.sleep(self.seconds)
            assert self.hold.wait(60)
        found = {"res": [str(image.shape[1]) for image in images], "scores": [1.0] * len(images)}
        return {name: found[name] for name in outputs}


class Web:
    """A running web service."""

    def __init__(self, service: StubService, app: App, server: serving.Server, port: int) -> None:
        self.service = service
        self.app = app
        self.server = server
        self.port = port

    def ask(self, method: str, path: str, data: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        """The answer, read; its bytes are `answer.data`."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, data, {"Content-Type": "application/json", **given})
            answer = connection.getresponse()
            answer.data = answer.read()
            return answer

    def post(self, data: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        return self.ask("POST", PATH, body() if data is None else data, **headers)

    def in_background(self, **headers: str) -> "Pending":
        return Pending(self, headers)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series, 0 while it is not there."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.ask("GET", "/metrics").data.decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(label in series for label in wanted):
                return float(value)
        return 0.0


class Pending:
    """A request under way."""

    def __init__(self, web: Web, headers: dict[str, str]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._answer = self._pool.submit(web.post, **headers)
        self._pool.shutdown(wait=False)

    def answer(self) -> http.client.HTTPResponse:
        return self._answer.result(60)


@contextlib.contextmanager
def running(settings: Settings = Settings(), backends: Sequence[Backend] = ()) -> Iterator[Web]:  # noqa: B008
    """The stub on a free port, drained at the end."""
    service = StubService()
    app = create_app(service, settings, backends=backends)
    bound = endpoint.bind("127.0.0.1", 0)
    server = serving.Server(app, bound, settings)
    loop = threading.Thread(target=server.run)
    loop.start()
    try:
        yield Web(service, app, server, bound.getsockname()[1])
    finally:
        service.hold.set()
        server.drain()
        loop.join(30)
        assert not loop.is_alive()
