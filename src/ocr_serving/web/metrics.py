"""What a web service counts, as Prometheus reads it. docs/operations.md explains each metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ocr_serving.deadline import Deadline
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.web.backend import Backend
from ocr_serving.web.gate import Gate

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one web service, on a registry of their own. Thread-safe.

    Every label has a fixed set of values: nothing that a client sends becomes one.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter("ocr_requests", "HTTP requests answered", ("route", "status"), registry=self._registry)
        self._request_seconds = self._histogram(
            "ocr_request_seconds", "Time from a request's receipt to its answer", _SECONDS, "route"
        )
        self._stage_seconds = self._histogram("ocr_stage_seconds", "Time a request spent in a stage", _SECONDS, "stage")
        self._batch_size = self._histogram("ocr_batch_size", "Images or crops in one run of a model", _ITEMS, "model")
        self._dropped = Counter(
            "ocr_dropped_requests", "Requests dropped before they were worked on", ("reason",), registry=self._registry
        )

    def answered(self, route: str, status: int, seconds: float, stages: Mapping[str, float]) -> None:
        """Count an answered request and its times."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        for stage, spent in stages.items():
            self._stage_seconds.labels(stage).observe(spent)

    def dropped(self, reason: str) -> None:
        """Count a request that was dropped before it was worked on."""
        self._dropped.labels(reason).inc()

    def measured(self, predictor: Predictor, role: str) -> Predictor:
        """The predictor, with the sizes of its batches counted under the role, "det" or "rec"."""
        return _Measured(predictor, self._batch_size.labels(role))

    def watch(self, gate: Gate, backends: Sequence[Backend]) -> None:
        """Report how many requests are worked on and wait, what the models run on and how their servers fare."""
        running = Gauge("ocr_running_requests", "Requests worked on", registry=self._registry)
        running.set_function(lambda: gate.running)
        queued = Gauge("ocr_queued_requests", "Requests waiting for their turn", registry=self._registry)
        queued.set_function(lambda: gate.queued)
        self._registry.register(_Backends(backends))

    def page(self) -> bytes:
        """All of them in Prometheus's text form (server.metrics.CONTENT_TYPE)."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float], label: str) -> Histogram:
        return Histogram(name, what, (label,), buckets=buckets, registry=self._registry)


class _Measured(Predictor):
    """A predictor whose batches are counted. See predictor.base.Predictor."""

    def __init__(self, predictor: Predictor, batch_size: Histogram) -> None:
        self._predictor = predictor
        self._batch_size = batch_size

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict."""
        return self.predict_each([feed], fetch, deadline)[0]

    def predict_each(
        self, feeds: Sequence[Mapping[str, Array]], fetch: Sequence[str] = (), deadline: Deadline | None = None
    ) -> list[Arrays]:
        """See predictor.base.Predictor.predict_each."""
        for feed in feeds:
            self._batch_size.observe(max(len(array) for array in feed.values()))
        return self._predictor.predict_each(feeds, fetch, deadline)

    def close(self) -> None:
        """See predictor.base.Predictor.close."""
        self._predictor.close()


class _Backends(Collector):
    """Reads the backends when it is asked."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = backends

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client's Collector."""
        info = GaugeMetricFamily(
            "ocr_model_info", "1 for each model behind the service", labels=("role", "model", "engine", "precision")
        )
        restarts = CounterMetricFamily(
            "ocr_model_server_restarts", "Times a model server died and was started again", labels=("role",)
        )
        looping = GaugeMetricFamily(
            "ocr_model_server_crash_loop", "1 while a model server dies again and again", labels=("role",)
        )
        for backend in self._backends:
            info.add_metric((backend.role, backend.model, backend.engine, backend.precision), 1)
            if backend.process is not None:
                restarts.add_metric((backend.role,), backend.process.restarts)
                looping.add_metric((backend.role,), backend.process.failure is not None)
        return [info, restarts, looping]
