"""WebService: the web service that users subclass, with their own pre- and post-processing around one model."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flask import Request, request

from ocr_serving import command_line, endpoint, logs, model_dir, settings
from ocr_serving.compat import numpy_bytes
from ocr_serving.compat.client import Client
from ocr_serving.compat.local_predictor import LocalPredictor
from ocr_serving.compat.outputs import Outputs
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, ConfigError, OcrServingError
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE
from ocr_serving.server.supervisor import ModelServerProcess
from ocr_serving.settings import Settings
from ocr_serving.web import app, exchange, openapi, request_form, serving
from ocr_serving.web.backend import Backend
from ocr_serving.web.metrics import Metrics

logger = logging.getLogger(__name__)

EXAMPLE = '{"feed": [{"x": "..."}], "fetch": ["res"]}'
FORM = {"type": "object", "required": ["feed", "fetch"]}
"""JSON schema of a request's body; the rest is up to the hooks."""
NO_PIPELINE = (
    "Pipeline services (Op, PipelineClient, config.yml) are not offered; python3 ocr_web_server.py reads the text of "
    "images, and a WebService runs one model with your own hooks around it."
)
_CPU = "-1"


class WebService:
    """A web service at /<name>/prediction.

    Call load_model_config, prepare_server, run_rpc_service or run_debugger_service, and run_web_service. Subclasses
    override preprocess and postprocess; several requests run at once, so what belongs to one must not be kept on self.

    Attributes:
        name, port: where it answers.
        feed_vars, fetch_vars: alias -> variable of the model.
        client: what calls the model.
    """

    def __init__(self, name: str = "default_service") -> None:
        numpy_bytes.restore_fromstring()
        self.name = name
        self.gpus = [_CPU]
        self.client: Client | LocalPredictor | None = None
        self._settings: Settings | None = None
        self._precision: str | None = None
        self._models: list[str] = []
        self._characters: tuple[str, ...] = ()
        self._server: ModelServerProcess | None = None
        self._app: app.App | None = None

    def load_model_config(
        self, server_config_dir_paths: str | Sequence[str], client_config_path: str | Sequence[str] | None = None
    ) -> None:
        """Name the model.

        Args:
            server_config_dir_paths: the model folder, or a list of one.
            client_config_path: what the client knows of it; None takes the model folder's own configuration.

        Raises:
            ConfigError: a folder is missing or damaged.
        """
        paths = server_config_dir_paths
        self._models = [paths] if isinstance(paths, str) else list(paths)
        if len(self._models) != 1:
            raise ConfigError(
                "A web service takes one model; chain two with: python3 -m paddle_serving_server.serve --model "
                "ocr_det_model ocr_rec_model --op GeneralDetectionOp GeneralInferOp."
            )
        conf = Path(self._models[0]) / model_dir.SERVER_CONF
        feeds, fetches = model_dir.read_conf(conf)
        self.feed_vars = {variable.alias: variable for variable in feeds}
        self.fetch_vars = {variable.alias: variable for variable in fetches if variable.alias not in model_dir.DERIVED}
        self.client_config_path = client_config_path or [str(conf)]

    def set_gpus(self, gpus: str | int | Sequence[str | int]) -> None:
        """Run on this GPU, "-1" or "" for the CPU; of several, the first counts."""
        parts = [gpus] if isinstance(gpus, (str, int)) else gpus
        self.gpus = [gpu for part in parts for gpu in str(part).split(",") if gpu] or [_CPU]

    def prepare_server(
        self,
        workdir: str = "",
        port: int = 9393,
        device: str = "cpu",
        precision: str | None = None,
        *others: Any,
        gpuid: str | int | Sequence[str | int] | None = None,
        **more: Any,
    ) -> None:
        """Set up the service.

        Args:
            workdir: has no effect here.
            port: where the service answers; the address is the setting `host`.
            device: has no effect, as in the original: set_gpus or `gpuid` choose.
            precision: fp32, fp16 or bf16; None takes the fastest that reads as well (the original took fp32).
            gpuid: as set_gpus().
            others, more: the original's further options have no effect here.

        Raises:
            ConfigError: the port or a setting is not one.
        """
        if more:
            logger.info("prepare_server: %s: no effect here", ", ".join(more))
        if gpuid is not None:
            self.set_gpus(gpuid)
        self.port = port
        known = settings.precision_named(precision, logger.warning)
        self._precision = precision if known else None
        self._settings = settings.load({"port": port, "precision": known})

    def run_rpc_service(self) -> None:
        """Start a model server of the service's own, and wait until it answers.

        Raises:
            ConfigError: the model cannot be served; UpstreamUnavailable: its server did not get ready.
        """
        chosen = self._prepared()
        if self.gpus[0] != _CPU:
            chosen = chosen.replace(device="gpu", gpu_id=self.gpus[0])
        self._server = ModelServerProcess(self._models[0], chosen)
        client = Client(raise_on_error=True)
        client.load_client_config(self.client_config_path)
        client.set_rpc_timeout_ms(int(chosen.request_timeout * 1000))
        client.connect([self._server.start()])
        self._make_app(client)

    def run_debugger_service(self, gpu: bool = False) -> None:
        """Run the model in this process.

        Raises:
            ConfigError: the model, the engine or the device cannot be used.
        """
        self._prepared()
        predictor = LocalPredictor()
        gpu_id = self.gpus[0] if self.gpus[0] != _CPU else 0
        predictor.load_model_config(self._models[0], use_gpu=gpu, gpu_id=gpu_id, precision=self._precision)
        self._make_app(predictor)

    def run_web_service(self) -> None:
        """Answer requests until SIGINT or SIGTERM; in a thread other than the main one, as long as the process lives.

        Raises:
            ConfigError: the port is taken, or no run_*_service was called.
        """
        chosen, flask_app = self._prepared(), self.get_app_instance()
        logs.configure(chosen.log_format)
        takes_signals = threading.current_thread() is threading.main_thread()  # Python lets no other thread
        if takes_signals:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with endpoint.bind(chosen.host, chosen.port) as bound:
                server = serving.Server(flask_app, bound, chosen)
                command_line.announce(f"web service address:\nhttp://{endpoint.of_socket(bound)}{self._path}\n")
                if takes_signals:
                    server.run_until_told()
                else:
                    server.run()
        except KeyboardInterrupt:
            pass  # while starting
        finally:
            if self._server is not None:
                self._server.stop()

    def get_app_instance(self) -> app.App:
        """The WSGI app.

        Raises:
            ConfigError: no run_*_service was called.
        """
        if self._app is None:
            raise ConfigError("run_rpc_service or run_debugger_service must be called first.")
        return self._app

    def get_prediction(self, request: Request) -> dict[str, Any]:
        """The answer's body.

        Raises:
            BadInput: the request is none.
            Whatever the hooks and the client raise, but ValueErrors: those are a hook's way to tell the caller
            something, and become the result.
        """
        this = exchange.of(request.environ)
        feed, fetch = _parse(self._prepared().max_body_bytes)
        this.images = len(feed) if isinstance(feed, list) else 1
        try:
            result = self._predict(feed, fetch, this.deadline)
        except OcrServingError:
            raise
        except ValueError as error:
            result = str(error)
        return {"result": result.data if isinstance(result, Outputs) else result}

    def preprocess(self, feed: Any, fetch: Any) -> tuple[Any, Any, bool]:
        """What the model is fed: overridden by users. This one stacks the instances, each in its declared shape.

        Args:
            feed, fetch: the request's.

        Returns:
            What Client.predict takes as feed, fetch and batch. An empty feed is answered without running the model.
        """
        arrays = {
            alias: np.stack([np.reshape(np.array(instance[alias]), variable.shape) for instance in feed])
            for alias, variable in self.feed_vars.items()
        }
        return arrays, fetch, True

    def postprocess(self, feed: Any, fetch: Any, fetch_map: Mapping[str, Any]) -> Any:
        """The value of "result": overridden by users. This one turns the outputs into lists.

        Args:
            feed: the request's.
            fetch: what preprocess returned.
            fetch_map: alias of an output -> array; of a rec model, see Outputs.
        """
        return {name: array.tolist() for name, array in fetch_map.items()}

    def prepare_pipeline_config(self, yml_file: str | None = None, yml_dict: Mapping[str, Any] | None = None) -> None:
        """Refuse: the Pipeline service was another product.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(NO_PIPELINE)

    def _predict(self, feed: Any, fetch: Any, deadline: Deadline | None) -> Any:
        prepared = self.preprocess(feed, fetch)
        # An example of 0.9 returns two empty lists where there is no text.
        fed, fetched, batch = prepared if len(prepared) == 3 else (*prepared, True)
        if isinstance(fed, dict):
            fed = {alias: value for alias, value in fed.items() if alias != "fetch"}
        return self.postprocess(feed=feed, fetch=fetched, fetch_map=self._run(fed, fetched, batch, deadline))

    def _run(self, fed: Any, fetched: Any, batch: bool, deadline: Deadline | None) -> Any:
        if not len(fed):
            return {alias: np.zeros((0, 1, 1), np.float32) for alias in fetched or self.fetch_vars}
        if self._server is not None:
            self._server.check()
        assert self.client is not None
        run = partial(self.client.predict, feed=fed, batch=batch, deadline=deadline)
        if not self._characters:
            return run(fetch=fetched)
        return Outputs(run(fetch=[CTC_INDEX, CTC_SCORE]), partial(run, fetch=fetched), self._characters)

    def _prepared(self) -> Settings:
        if self._settings is None or not self._models:
            raise ConfigError("load_model_config and prepare_server must be called first.")
        return self._settings

    @property
    def _path(self) -> str:
        return f"/{self.name}/prediction"

    def _make_app(self, client: Client | LocalPredictor) -> None:
        self.client = client
        self._characters = model_dir.load(self._models[0]).characters
        chosen = self._prepared()
        document = openapi.document(self._path, FORM, {}, chosen)
        view = partial(self.get_prediction, request)  # whichever is the current one
        self._app = app.app_of_path(self._path, view, chosen, document, Metrics(), self._backends())

    def _backends(self) -> list[Backend]:
        """The model server started for this service, if one was; what its model takes, only the hooks know."""
        server = self._server
        if server is None:
            return []
        name = Path(self._models[0]).name
        return [Backend("model", name, server.engine, server.precision, lambda deadline: server.check(), server)]


def _parse(limit: int) -> tuple[Any, Any]:
    """The feed and fetch of the current request.

    Raises:
        BadInput: it has none; TooLarge: its body has more bytes than `limit`.
    """
    body = request_form.decode(app.read_body(limit, EXAMPLE), EXAMPLE)
    if not isinstance(body, dict) or not {"feed", "fetch"} <= body.keys():
        raise BadInput(f'The body must be a JSON object with "feed" and "fetch". Example: {EXAMPLE}')
    if not body["feed"]:
        raise BadInput(f'"feed" is empty. Example: {EXAMPLE}')
    return body["feed"], body["fetch"]
