"""Fixtures that several test files share: model folders and running servers, one of each a session."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import server_process
import zoo_models
from compat_clients import Clients
from rpc_peers import Doubler, serving
from server_process import ServerProcess

from ocr_serving import zoo
from ocr_serving.detection import Detector
from ocr_serving.pipeline import Pipeline
from ocr_serving.recognition import Recognizer
from ocr_serving.server.listener import ModelServer
from ocr_serving.settings import Settings


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Jobs in the background of a shell ignore SIGINT, and so would the servers that tests start and end with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user works: ocr_det_model and ocr_rec_model, their client folders, and the sample images."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("ocr_det", "ocr_rec"):
        model = zoo_models.folder(name)
        (folder / f"{name}_model").symlink_to(model, target_is_directory=True)
        (folder / f"{name}_client").symlink_to(zoo.client_dir(model), target_is_directory=True)
    (folder / "imgs").symlink_to(server_process.ROOT / "imgs", target_is_directory=True)
    return folder


@pytest.fixture(scope="session")
def det_server(models: Path) -> Iterator[ServerProcess]:
    """The det model server, as users start it."""
    with server_process.running(*server_process.model_server("ocr_det_model"), cwd=models) as server:
        yield server


@pytest.fixture(scope="session")
def ocr_web(models: Path, det_server: ServerProcess) -> Iterator[ServerProcess]:
    command = server_process.web("ocr_web", "--det-endpoint", f"127.0.0.1:{det_server.port}")
    with server_process.running(*command, cwd=models) as server:
        yield server


def _web(name: str) -> Callable[[Path], Iterator[ServerProcess]]:
    @pytest.fixture(scope="session", name=name)
    def run(models: Path) -> Iterator[ServerProcess]:
        with server_process.running(*server_process.web(name), cwd=models) as server:
            yield server

    return run


det_web, rec_web = _web("det_web"), _web("rec_web")
ocr_debugger, det_debugger, rec_debugger = _web("ocr_debugger"), _web("det_debugger"), _web("rec_debugger")


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def server(doubler: Doubler) -> Iterator[ModelServer]:
    """A model server of the doubler, in this process."""
    with serving(doubler) as server:
        yield server


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Clients]:
    """Makes clients of Paddle Serving's old interface."""
    with contextlib.closing(Clients(tmp_path)) as clients:
        yield clients


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    """Det and rec with the default models and settings, in this process."""
    rec = zoo_models.predictor("ocr_rec")
    recognizer = Recognizer(rec, rec.model.characters, rec.model.image_height, Settings())
    return Pipeline(Detector(zoo_models.predictor("ocr_det"), Settings()), recognizer, Settings().rec_min_score)
