"""Predictors of the web services whose models run in model servers: somebody else's, or one of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ocr_serving.deadline import Deadline
from ocr_serving.endpoint import parse
from ocr_serving.errors import BadInput, BadUpstream, UpstreamUnavailable
from ocr_serving.model_dir import DET_LOGITS, FLOAT32, INPUT, ModelDir, Variable
from ocr_serving.predictor.base import Array, Arrays
from ocr_serving.predictor.remote import RemotePredictor
from ocr_serving.server.supervisor import ModelServerProcess
from ocr_serving.settings import Settings

DET_FEEDS = (Variable(INPUT, INPUT, FLOAT32, (3, 960, 960)),)
DET_FETCHES = (Variable(DET_LOGITS, DET_LOGITS, FLOAT32, ()),)
"""What every det model server of ours takes and gives."""


class DetServer(RemotePredictor):
    """The det model servers at settings.det_endpoint, which users start themselves. See predictor.base.Predictor."""

    def __init__(self, settings: Settings) -> None:
        """Know where they are; they need not run yet.

        Raises:
            ConfigError: an endpoint is no address.
        """
        endpoints = [endpoint.strip() for endpoint in settings.det_endpoint.split(",")]
        super().__init__(endpoints, DET_FEEDS, DET_FETCHES)
        _, port = parse(endpoints[0])
        self._endpoints = ", ".join(endpoints)
        self._command = f"python3 -m paddle_serving_server.serve --model {Path(settings.det_model).name} --port {port}"

    def predict_each(
        self, feeds: Sequence[Mapping[str, Array]], fetch: Sequence[str] = (), deadline: Deadline | None = None
    ) -> list[Arrays]:
        """See predictor.base.Predictor.predict_each."""
        try:
            return super().predict_each(feeds, fetch, deadline)
        except UpstreamUnavailable as error:
            raise UpstreamUnavailable(f"{error} Start it with: {self._command}") from error
        except BadInput as error:  # what was sent is ours, so the caller is not to blame
            raise BadUpstream(f"What answers at {self._endpoints} is no det model server: {error}") from error


class OwnServer(RemotePredictor):
    """A model server started and supervised by this process. See predictor.base.Predictor.

    Attributes:
        process: the server.
    """

    def __init__(self, model: ModelDir, settings: Settings) -> None:
        """Start it and wait until it answers.

        Raises:
            ConfigError: the model cannot be served, or no port is free.
            UpstreamUnavailable: it died or did not get ready.
        """
        self.process = ModelServerProcess(model.path, settings)
        super().__init__(self.process.start(), model.feeds, model.fetches)

    def predict_each(
        self, feeds: Sequence[Mapping[str, Array]], fetch: Sequence[str] = (), deadline: Deadline | None = None
    ) -> list[Arrays]:
        """See predictor.base.Predictor.predict_each."""
        self.process.check()
        return super().predict_each(feeds, fetch, deadline)

    def close(self) -> None:
        """Stop the server; see predictor.base.Predictor.close."""
        super().close()
        self.process.stop()
