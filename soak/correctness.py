"""C: the same answers under load, in batches, by every way."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence

import cv2
import image_files
import numpy as np
import server_process
from harness.images import ROOT

from ocr_serving import image, samples
from ocr_serving.compat.client import Client as RpcClient
from ocr_serving.deadline import Deadline
from ocr_serving.errors import EngineFailed
from ocr_serving.geometry import Image
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.recognition import Line, Recognizer
from ocr_serving.settings import Settings
from ocr_serving.zoo import client_dir
from soak import client, pictures
from soak.scenario import Context, Finding, Scenario

PIXELS = 10**7
FETCH = ("dt_boxes", "scores")


def c1(context: Context) -> Finding:
    """Distinct images, 16 at a time, against one after the other."""
    stack = context.shared
    count, rounds, threads = context.options.scaled(200), 3, 16
    bodies = [client.body(file, fetch=FETCH) for file in _distinct(count)]
    alone = client.send_all(stack.port, bodies, 1)
    order = [*range(count)] * rounds
    random.Random(3).shuffle(order)
    together = client.send_all(stack.port, (bodies[i] for i in order), threads)
    texts = sum(alone[i].texts != reply.texts for i, reply in zip(order, together, strict=True))
    pairs = [
        (alone[i].result["dt_boxes"], reply.result["dt_boxes"])
        for i, reply in zip(order, together, strict=True)
        if reply.result
    ]
    apart = max((_apart(a, b) for a, b in pairs), default=0.0)
    lines = sum(len(reply.texts or ()) for reply in alone)
    figure = (
        f"{count} images with {lines} lines, {len(together)} requests from {threads} threads: {texts} "
        f"texts differ, boxes by {apart:.1g} px at most"
    )
    return Finding(figure, texts == 0 and apart <= 1e-3 and set(client.statuses(together)) == {200} and lines > count)


def _distinct(count: int) -> list[bytes]:
    """Small cuts of the sample photo in as many sizes, every second a line."""
    photo = image.decode((ROOT / "imgs/sign.jpg").read_bytes(), PIXELS)
    dice, lines, files = random.Random(1), pictures.lines(count), []
    for i in range(count):
        top, left, scale = dice.randrange(80), dice.randrange(120), 0.3 + 0.2 * dice.random()
        cut = cv2.resize(photo[top : top + 400, left:], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        files.append(lines[i] if i % 2 else pictures.png(cut))
    return files


def _apart(one: Sequence[object], other: Sequence[object]) -> float:
    if len(one) != len(other):
        return float("inf")
    return float(np.abs(np.array(one, float) - np.array(other, float)).max()) if one else 0.0


def c2(context: Context) -> Finding:
    """Options of one's own."""
    stack = context.shared
    file = pictures.line("Number 7919")
    wanted = [("res",), ("dt_boxes",), ("scores",), ("dt_boxes", "scores")]
    count = context.options.scaled(400)
    replies = client.send_all(stack.port, (client.body(file, fetch=wanted[i % 4]) for i in range(count)), 16)
    wrong = sum(set(reply.result or ()) != {"res", *wanted[i % 4]} for i, reply in enumerate(replies))
    return Finding(
        f"{count} requests with 4 kinds of fetch from 16 threads: {wrong} with another's outputs", wrong == 0
    )


class _Poisoned(Predictor):
    """The real model, which breaks on, or answers NaN for, a batch with a red line. See predictor.base.Predictor."""

    def __init__(self, predictor: LocalPredictor) -> None:
        self._predictor = predictor

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        (batch,) = feed.values()
        if any((crop[..., 2].astype(int) - crop[..., 0] > 200).any() for crop in batch):
            raise EngineFailed("The engine broke on this input.")
        return self._predictor.predict(feed, fetch, deadline)

    def close(self) -> None:
        self._predictor.close()


def c3(context: Context) -> Finding:
    """One bad item in a batch of eight: the rec model breaks, and the web service is sent a file that is no image."""
    predictor = LocalPredictor.load(str(context.models.rec), Settings())
    crops = _crops(8)
    alone = _recognized(predictor, crops)
    crops[3] = np.full_like(crops[3], (0, 0, 255))
    lines = _recognized(_Poisoned(predictor), crops)
    right = sum(a.text == b.text for i, (a, b) in enumerate(zip(alone, lines, strict=True)) if i != 3)
    typed = isinstance(lines[3].error, EngineFailed)
    predictor.close()
    files = [*pictures.lines(7), b"no image"]
    reply = client.post(context.shared.port, client.body(*files))
    each = [client.post(context.shared.port, client.body(file)).texts for file in files[:7]]
    same = [found.get("res") for found in reply.result or []][:7] == each
    figure = (
        f"rec: {right} of 7 as alone, the eighth a typed error: {typed}; web: the seven as alone: {same}, "
        f"the eighth {(reply.result or [{}])[-1].get('error', {}).get('code')}"
    )
    return Finding(figure, right == 7 and typed and same and "error" in reply.result[-1])


def _crops(count: int) -> list[Image]:
    return [image.decode(file, PIXELS) for file in pictures.lines(count)]


def _recognized(predictor: LocalPredictor | _Poisoned, crops: Sequence[Image], batch: int = 8) -> list[Line]:
    model = predictor.model if isinstance(predictor, LocalPredictor) else predictor._predictor.model
    settings = Settings(rec_batch=batch)
    recognizer = Recognizer(predictor, model.characters, model.image_height or 48, settings)
    try:
        return recognizer.recognize(crops)
    finally:
        recognizer.close()


def c4(context: Context) -> Finding:
    """A line alone, among others, and beside longer ones."""
    predictor = LocalPredictor.load(str(context.models.rec), Settings())
    crops = _crops(16)
    alone = [_recognized(predictor, [crop])[0] for crop in crops]
    texts, apart = 0, 0.0
    for size in range(2, 9):
        for start in range(0, 16, size):
            group = slice(start, min(16, start + size))
            for one, other in zip(alone[group], _recognized(predictor, crops[group], size), strict=True):
                texts += one.text != other.text
                apart = max(apart, abs(one.score - other.score))
    predictor.close()
    return Finding(
        f"16 lines in batches of 2 to 8: {texts} texts differ, scores by {apart:.1g} at most",
        texts == 0 and apart < 1e-3,
    )


def c5(context: Context) -> Finding:
    """The same images by every way."""
    files = [sample.name for sample in samples.render() if sample.name.startswith("imgs/")]
    bodies = [client.body((ROOT / name).read_bytes(), fetch=FETCH) for name in files]
    bodies.append(client.body(image_files.files()["png rgb"], fetch=FETCH))
    over_rpc = client.send_all(context.shared.port, bodies, 1)
    with server_process.running(*context.web_command(1, door="ocr_debugger"), cwd=ROOT) as web:
        local = client.send_all(web.port, bodies, 1)
    port = server_process.free_port()
    chain = [
        "-m",
        "paddle_serving_server.serve",
        "--model",
        str(context.models.det),
        str(context.models.rec),
        "--port",
        str(port),
    ]
    with server_process.running([*chain, "--op", "GeneralDetectionOp", "GeneralInferOp"], port, ROOT):
        rpc = RpcClient(raise_on_error=True)
        rpc.load_client_config([str(client_dir(folder)) for folder in (context.models.det, context.models.rec)])
        rpc.connect([f"127.0.0.1:{port}"])
        images = [json.loads(body)["feed"][0]["x"] for body in bodies]
        chained = [rpc.predict(feed={"x": text}, fetch=["res"], batch=True)["res"].tolist() for text in images]
        rpc.release()
    same = [
        a.texts == b.texts and _apart(a.result["dt_boxes"], b.result["dt_boxes"]) <= 1e-3
        for a, b in zip(over_rpc, local, strict=True)
    ]
    text = [a.texts == b for a, b in zip(over_rpc, chained, strict=True)]
    lines = sum(len(reply.texts) for reply in over_rpc)
    figure = (
        f"{len(bodies)} images, {lines} lines: web over RPC and in process agree on {sum(same)} in text "
        f"and boxes, the chained server on {sum(text)} in text"
    )
    return Finding(figure, all(same) and all(text))


def c6(_: Context) -> Finding:
    """The invariants of geometry and CTC, by hypothesis."""
    tests = ["tests/test_geometry.py", "tests/test_detection.py", "tests/test_recognition.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    return Finding(f"{', '.join(tests)}: {done.stdout.strip().splitlines()[-1]}", done.returncode == 0)


SCENARIOS = (
    Scenario("C1", "distinct images, each three times from 16 threads, against one after the other", c1),
    Scenario("C2", "concurrent requests that differ in what they fetch", c2),
    Scenario("C3", "one poisoned item among seven good ones", c3),
    Scenario("C4", "lines alone and in batches of every size", c4),
    Scenario("C5", "the same images in process, over RPC, chained", c5),
    Scenario("C6", "hypothesis on box order, crops and CTC (run once more)", c6),
)
