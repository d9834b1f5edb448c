"""What the model server counts, as Prometheus reads it. The metrics' names are the original's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, generate_latest, start_http_server

from ocr_serving import logs
from ocr_serving.errors import ClientLeft, ConfigError, OcrServingError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one server. Thread-safe.

    Attributes:
        registry: holds them all.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answered = self._counter("pd_query_request_success", "Requests answered with outputs", "protocol")
        self._refused = self._counter("pd_query_request_failure", "Requests answered with an error", "protocol", "code")
        self._request_us = self._counter("pd_query_request_duration_us", "Time spent on requests, in µs", "protocol")
        self._inferences = self._counter("pd_inference_count", "Runs of a model", "model")
        self._inference_us = self._counter("pd_inference_duration_us", "Time spent in a model's engine, in µs", "model")

    @contextmanager
    def request(self, protocol: str, arrival: float | None = None) -> Iterator[None]:
        """Count the request that the block answers, or refuses with what it raises; one answered is logged, too.

        Args:
            protocol: that it came in.
            arrival: when, as of time.monotonic(); None is now.
        """
        begin = time.monotonic() if arrival is None else arrival
        try:
            yield
        except OcrServingError as error:
            self.refused(protocol, error)
            raise
        except ConnectionError:
            self.left(protocol)
            raise
        except Exception:
            self.refused(protocol, OcrServingError())
            raise
        else:
            self._answered.labels(protocol).inc()
            ms = round(_microseconds_since(begin) / 1000, 1)
            logs.access.info("%s answered in %.1f ms", protocol, ms, extra=logs.fields(protocol=protocol, ms=ms))
        finally:
            self._request_us.labels(protocol).inc(_microseconds_since(begin))

    def left(self, protocol: str) -> None:
        """Count a request whose client did not wait for the answer."""
        self._refused.labels(protocol, ClientLeft.code).inc()

    def refused(self, protocol: str, error: OcrServingError) -> None:
        """Count a request that is answered with an error."""
        self._refused.labels(protocol, error.code).inc()

    @contextmanager
    def inference(self, model: str) -> Iterator[None]:
        """Count the run of a model that is the block."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._inferences.labels(model).inc()
            self._inference_us.labels(model).inc(_microseconds_since(begin))

    def listen(self, host: str, port: int) -> None:
        """Serve the page on a port of its own, too, for as long as the process lives.

        Raises:
            ConfigError: it is no port, or taken, or the address is not this machine's.
        """
        try:
            start_http_server(port, host, self.registry)
        except OverflowError as error:
            raise ConfigError(f"The metrics need a port from 1 to 65535, not {port}.") from error
        except OSError as error:
            raise ConfigError(f"The metrics cannot be served on {host}:{port}: {error.strerror}.") from error

    def page(self) -> bytes:
        """All of them in Prometheus's text form (CONTENT_TYPE)."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self.registry)


def _microseconds_since(begin: float) -> int:
    return int((time.monotonic() - begin) * 1e6)
