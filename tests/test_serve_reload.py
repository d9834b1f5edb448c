"""Hot reload: models replaced while they are in use."""

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import server_process
import tiny_model
from rpc_peers import FEEDS, FETCHES, Doubler, numbers, wait_until
from server_process import ServerProcess

from ocr_serving import model_dir
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.server.service import ModelService, ServedModel
from ocr_serving.wire.tensor import Tensor

TOUCHES = 40
X = np.ones((1, tiny_model.SIZE), np.float32)


class Closable(Doubler):
    closed = False

    def close(self):
        self.closed = True
        super().close()


def infer(service: ModelService, value: float) -> float:
    [output] = service.infer([Tensor("x", "image", numbers(value))], ["out"], None)
    return output.array.flat[0]


def test_requests_in_flight_finish_on_the_old_model_which_is_freed_then():
    old, new = Closable(), Closable()
    service = ModelService({"doubler": ServedModel(old, FEEDS, FETCHES)})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(infer, service, -1)  # until released
        assert old.started.acquire(timeout=60)
        service.replace({"doubler": ServedModel(new, FEEDS, FETCHES)})
        assert infer(service, 3) == 6
        assert (old.calls, new.calls) == (1, 1)
        assert not old.closed
        old.release.set()
        assert waiting.result(60) == -2
    assert old.closed
    assert not new.closed


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[ServerProcess, RemotePredictor]]:
    command, port = server_process.model_server(str(folder))
    read = model_dir.load(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCR_RELOAD_INTERVAL", "0.02")
        server = server_process.running(command, port, folder.parent)
        with (
            server as process,
            contextlib.closing(RemotePredictor(f"127.0.0.1:{port}", read.feeds, read.fetches)) as client,
        ):
            yield process, client


def factor(client: RemotePredictor) -> int:
    answer = client.predict({"x": X})["y"]
    assert (answer == answer[0, 0]).all()
    return int(answer[0, 0])


def touch(folder: Path) -> None:
    """As users do; a file that is there already gets another time."""
    (folder / "fluid_time_file").touch()


def test_a_hundred_touches_under_load_cost_no_request_and_no_memory(tmp_path):
    folder = tiny_model.write(tmp_path / "tiny_model", 1)
    stopping = threading.Event()
    seen: list[int] = []

    def keep_calling(client):
        while not stopping.is_set():
            seen.append(factor(client))

    with serving(folder) as (server, client), ThreadPoolExecutor() as pool:
        callers = [pool.submit(keep_calling, client) for _ in range(3)]
        try:
            for expected in range(2, TOUCHES + 2):
                tiny_model.write(folder, expected)
                touch(folder)
                wait_until(lambda expected=expected: factor(client) == expected)
                if expected == TOUCHES // 5:
                    early = psutil.Process(server.process.pid).memory_info().rss
            late = psutil.Process(server.process.pid).memory_info().rss
        finally:
            stopping.set()
        for caller in callers:
            caller.result(60)  # raises what a request failed with
        assert len(seen) > TOUCHES
        assert late - early < 30 * 2**20, "each model that stayed would be a MiB and more"


def test_a_damaged_model_leaves_the_old_one_in_service(tmp_path):
    folder = tiny_model.write(tmp_path / "tiny_model", 1)
    with serving(folder) as (server, client):
        assert factor(client) == 1
        (folder / "inference.onnx").write_bytes(b"damaged")
        touch(folder)
        server.wait_for_output("cannot be served, so the one loaded before stays")
        server.wait_for_output("OpenVINO cannot read")
        assert "Traceback" not in server.output
        assert factor(client) == 1
        tiny_model.write(folder, 2)
        touch(folder)
        wait_until(lambda: factor(client) == 2)


def test_a_model_file_without_a_touch_and_a_removed_time_file_change_nothing(tmp_path):
    folder = tiny_model.write(tmp_path / "tiny_model", 1)
    touch(folder)
    with serving(folder) as (server, client):
        tiny_model.write(folder, 2)
        (folder / "fluid_time_file").unlink()
        os.utime(folder)
        assert factor(client) == 1
        touch(folder)
        wait_until(lambda: factor(client) == 2)
        server.wait_for_output("Loaded anew")
        assert server.output.count("Loaded anew") == 1
