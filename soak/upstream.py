"""R1, R3, R4: a det server that comes late, is sent garbage, or lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import psutil
import server_process
from harness.images import ROOT

from ocr_serving import endpoint
from ocr_serving.deadline import Deadline
from ocr_serving.model_dir import DET_LOGITS
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.server.listener import ModelServer
from ocr_serving.server.service import ModelService, ServedModel
from ocr_serving.web.model_servers import DET_FEEDS, DET_FETCHES
from soak import client
from soak.scenario import SAMPLE, SAMPLE_TEXT, Context, Finding, Scenario, seconds_until


def r1(context: Context) -> Finding:
    """The web service before its det server."""
    port = server_process.free_port()
    with server_process.running(*context.web_command(port), cwd=ROOT) as web:
        live = client.get(web.port, "/health/live").status
        ready = client.get(web.port, "/health/ready").status
        reply = client.post(web.port, client.body(SAMPLE()))
        with server_process.running(*context.det_command(port), cwd=ROOT):
            back = seconds_until(lambda: client.get(web.port, "/health/ready").status == 200, 30)
            text = client.post(web.port, client.body(SAMPLE())).texts
    figure = (
        f"live {live}, ready {ready}, a request {reply.status} {reply.code} in {1000 * reply.seconds:.0f} ms; "
        f"ready {back or -1:.1f} s after det listens"
    )
    refused = reply.status == 503 and reply.code == "UPSTREAM_UNAVAILABLE" and reply.seconds < 1
    return Finding(figure, live == 200 and ready == 503 and refused and (back or 9) <= 2 and text == [SAMPLE_TEXT])


def r3(context: Context) -> Finding:
    """Bytes that no client sends, on the model server's port."""
    stack = context.shared
    process = psutil.Process(stack.det.process.pid)
    before = process.memory_info().rss / 1e6
    dice = np.random.default_rng(1)
    count = context.options.scaled(500)
    for i in range(count):
        noise = dice.bytes(int(dice.integers(1, 3000)))
        start = (
            b"",
            b"PRPC",
            b"PRPC\xff\xff\xff\xff\0\0\0\x01",
            b"PRPC\0\0\0\x20\0\0\0\x10",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        )
        client.raw(stack.det.port, start[i % 5] + noise, seconds=1, end=True)
    answer = client.raw(stack.det.port, b"PRPX" + bytes(100), seconds=2)
    grown = process.memory_info().rss / 1e6 - before
    alive = stack.is_alive()
    figure = (
        f"{count} connections of garbage, oversize and damaged frames; memory {grown:+.1f} MB; closed, alive: {alive}"
    )
    return Finding(figure, alive and grown < 50 and not answer.startswith(b"PRPC"))


class _Liar(Predictor):
    """A det model that answers something else than a map. See predictor.base.Predictor."""

    def __init__(self, answer: Array | None = None) -> None:
        self.answer = answer

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        return {} if self.answer is None else {DET_LOGITS: self.answer}

    def close(self) -> None:
        pass


_LIES: Mapping[str, Array] = {
    "two dimensions": np.zeros((32, 32), np.float32),
    "another size": np.zeros((1, 1, 7, 7), np.float32),
    "two maps": np.zeros((2, 1, 32, 32), np.float32),
    "integers": np.zeros((1, 1, 32, 32), np.int64),
    "NaN": np.full((1, 1, 64, 64), np.nan, np.float32),
    "empty": np.zeros((0,), np.float32),
    "huge": np.zeros((1, 1, 4000, 4000), np.float32),
}


def r4(context: Context) -> Finding:
    """A det server that answers nonsense."""
    port = server_process.free_port()
    liar = _Liar()
    served = ModelService({"det": ServedModel(liar, DET_FEEDS, DET_FETCHES)})
    server = ModelServer(served, endpoint.bind("127.0.0.1", port), 2)
    server.start()
    answers: dict[str, client.Reply] = {}
    try:
        with server_process.running(*context.web_command(port), cwd=ROOT) as web:
            for name, lie in _LIES.items():
                liar.answer = lie
                answers[name] = client.post(web.port, client.body(SAMPLE()), {"X-Request-Id": f"lie-{name.split()[0]}"})
            logged = all(f"[lie-{name.split()[0]}]" in web.output for name in _LIES)
    finally:
        server.stop(2)
    figure = ", ".join(f"{name} {reply.status} {reply.code}" for name, reply in answers.items())
    return Finding(f"{figure}; ids in the log: {logged}", all(r.status == 502 for r in answers.values()) and logged)


SCENARIOS = (
    Scenario("R1", "the web service is started before its det server", r1),
    Scenario("R3", "garbage, oversize and damaged frames on the model server's port", r3),
    Scenario("R4", "a det server that answers wrong shapes, types, NaN, nothing and too much", r4),
)
