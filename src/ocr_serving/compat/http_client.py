"""HttpClient: a model server called over HTTP or gRPC, with the original's methods and returns."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from google.protobuf.message import DecodeError
from requests.adapters import HTTPAdapter

from ocr_serving import endpoint
from ocr_serving.compat import feeds, http_feeds
from ocr_serving.compat.client_config import ConfiguredClient, encryption_refused
from ocr_serving.compat.feeds import BadCall
from ocr_serving.errors import (
    BadInput,
    BadUpstream,
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    LimitExceeded,
    NotFound,
    OcrServingError,
    Overloaded,
    TooLarge,
    UpstreamUnavailable,
)
from ocr_serving.forks import PerProcess
from ocr_serving.wire import general_model_pb2 as pb
from ocr_serving.wire import json_form, messages, meta
from ocr_serving.wire.frame import MAX_BODY
from ocr_serving.wire.tensor import Tensor

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger(__name__)

PROTO, JSON = "application/proto", "application/json"
COMPRESS_OVER = 512
"""Bytes from which a body is worth compressing, as in the original."""
_BY_STATUS: Mapping[int, type[OcrServingError]] = {
    error.status: error
    for error in (BadInput, NotFound, TooLarge, LimitExceeded, Overloaded, DeadlineExceeded, EngineFailed)
}
_BY_GRPC_CODE: Mapping[str, type[OcrServingError]] = {
    "INVALID_ARGUMENT": BadInput,
    "UNIMPLEMENTED": NotFound,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": UpstreamUnavailable,
    "INTERNAL": EngineFailed,
}
_LONGEST_TEXT = 500
"""Characters of a server's error text passed on."""


class HttpClient(ConfiguredClient):
    """Calls one server of a model: protobuf over HTTP, JSON over HTTP, or gRPC.

    Where a call fails, predict() returns None and logs the reason, as the original; with `raise_on_error` it raises it.
    """

    def __init__(
        self,
        ip: str = "127.0.0.1",
        port: str | int = "9393",
        service_name: str = "/GeneralModelService/inference",
        raise_on_error: bool = False,
    ) -> None:
        self._raise_on_error = raise_on_error
        self._scheme, self._address = "http", f"{ip}:{port}"
        self._service_name = service_name
        self._timeout = 20.0
        self._proto, self._grpc = True, False
        self._compress_request, self._compress_response = False, False
        self._max_body_size = MAX_BODY
        self._headers: dict[str, str] = {}
        self._retries = 0
        self._session = PerProcess(self._new_session)
        self._channel: grpc.Channel | None = None

    def connect(self, url: str | Sequence[str] | None = None, encryption: bool = False) -> None:
        """Name the server; nothing is connected before the first call.

        Args:
            url: "host:port", "http://host:port" or "https://host:port"; a list holds one. None keeps what __init__ got.
            encryption: not offered.

        Raises:
            BadCall: several servers, or no address.
            ConfigError: encryption is asked for.
        """
        if encryption:
            raise encryption_refused()
        if isinstance(url, (list, tuple)):
            if len(url) != 1:
                raise BadCall("HttpClient only support 1 endpoint")
            url = url[0]
        if url is not None:
            self._scheme, self._address = _parse_url(str(url))
        self._close_channel()

    def set_http_proto(self, http_proto: bool) -> None:
        """Send protobuf (True, the default) or JSON."""
        self._proto = http_proto

    def set_use_grpc_client(self, use_grpc_client: bool) -> None:
        """Let predict() call over gRPC."""
        self._grpc = use_grpc_client

    def set_request_compress(self, try_request_gzip: bool) -> None:
        """Send bodies over COMPRESS_OVER bytes as gzip."""
        self._compress_request = try_request_gzip

    def set_response_compress(self, try_response_gzip: bool) -> None:
        """Ask for answers as gzip (off by default: over a fast network it costs more time than it saves)."""
        self._compress_response = try_response_gzip

    def set_timeout_ms(self, timeout_ms: int) -> None:
        """How long a call may take, in milliseconds; 20000 where this is not called.

        Over HTTP that is how long connecting, and each silence of the server, may take.

        Raises:
            BadCall: no whole number from 1 on.
        """
        if not isinstance(timeout_ms, int) or timeout_ms < 1:
            raise BadCall("timeout_ms must be int type.")
        self._timeout = timeout_ms / 1000

    def set_max_retries(self, retry_times: int = 3) -> None:
        """How often a connection that cannot be made is tried again, over HTTP.

        Raises:
            BadCall: no whole number.
        """
        if not isinstance(retry_times, int):
            raise BadCall("retry_times must be int type.")
        self._retries = retry_times
        self._session = PerProcess(self._new_session)

    def set_service_name(self, service_name: str) -> None:
        """The path that is called over HTTP."""
        self._service_name = service_name

    def set_max_body_size(self, max_body_size: int) -> None:
        """Largest message over gRPC, in bytes."""
        self._max_body_size = max_body_size
        self._close_channel()

    def add_http_headers(self, headers: Mapping[str, str]) -> None:
        """Send these headers, too, over HTTP."""
        self._headers.update(headers)

    def predict(
        self,
        feed: Any = None,
        fetch: str | Sequence[str] | None = None,
        batch: bool = False,
        need_variant_tag: bool = False,
        log_id: int = 0,
    ) -> Any:
        """Run the model on the server.

        Args:
            feed: alias of an input -> array, list, number or string; [such a mapping]; the value of the only input; or
                a list with one value for each input. Values stay as they are (see http_feeds).
            fetch: aliases of outputs; unknown ones are passed over, and without any all outputs come back.
            batch: whether arrays have their batch dimension; otherwise one is put in front.
            need_variant_tag: has no effect, as in the original.
            log_id: see messages.encode_request.

        Returns:
            The Response message, or with JSON a dict; None where the call failed, without `raise_on_error`.

        Raises:
            BadCall: a feed that the model does not take.
            ConfigError: no configuration is loaded.
            OcrServingError: with `raise_on_error`, why the call failed.
        """
        call = self.grpc_client_predict if self._grpc else self.http_client_predict
        return call(feed, fetch, batch, need_variant_tag, log_id)

    def http_client_predict(
        self,
        feed: Any = None,
        fetch: str | Sequence[str] | None = None,
        batch: bool = False,
        need_variant_tag: bool = False,
        log_id: int = 0,
    ) -> Any:
        """Call over HTTP: see predict."""
        sent, names = self._request(feed, fetch, batch)
        encode = _encode_proto if self._proto else json_form.encode_request
        return self._attempt(lambda: self._post(encode(sent, names, log_id)))

    def grpc_client_predict(
        self,
        feed: Any = None,
        fetch: str | Sequence[str] | None = None,
        batch: bool = False,
        need_variant_tag: bool = False,
        log_id: int = 0,
    ) -> Any:
        """Call over gRPC: see predict."""
        sent, names = self._request(feed, fetch, batch)
        return self._attempt(lambda: self._call(_encode_proto(sent, names, log_id)))

    def close(self) -> None:
        """Close the connections."""
        self._session.get().close()
        self._close_channel()

    def _new_session(self) -> requests.Session:
        """One with connections of its own; gRPC looks after those of forked processes itself."""
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=self._retries))
        return session

    def _request(self, feed: Any, fetch: str | Sequence[str] | None, batch: bool) -> tuple[list[Tensor], list[str]]:
        config = self._loaded()
        mapping = http_feeds.as_mapping(feed, config.feeds)
        convert = partial(http_feeds.as_array, is_chain=config.is_chain)
        return feeds.tensors(mapping, config.feeds, batch, convert), config.known_fetches(fetch)

    def _attempt(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OcrServingError as error:
            if self._raise_on_error:
                raise
            logger.error("predict failed: %s", error)
            return None

    def _post(self, body: bytes) -> Any:
        headers = {
            "Accept-Encoding": "gzip" if self._compress_response else "identity",
            "Content-Type": PROTO if self._proto else JSON,
            **self._headers,
        }
        if self._compress_request and len(body) > COMPRESS_OVER:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        url = f"{self._scheme}://{self._address}{self._service_name}"
        try:
            proxies = endpoint.proxies(url)
            answer = self._session.get().post(url, body, headers=headers, timeout=self._timeout, proxies=proxies)
        except requests.Timeout as error:
            raise DeadlineExceeded(f"The time for this request ran out while {self._address} worked on it.") from error
        except requests.exceptions.SSLError as error:
            raise UpstreamUnavailable(endpoint.no_tls(self._address)) from error
        except requests.RequestException as error:
            raise UpstreamUnavailable(f"No model server answers at {self._address}.") from error
        if not answer.ok:
            raise _BY_STATUS.get(answer.status_code, BadUpstream)(
                f"The model server at {self._address} answered {answer.status_code}: {answer.text[:_LONGEST_TEXT]}"
            )
        try:
            is_proto = answer.headers.get("Content-Type", "").startswith(PROTO)
            return pb.Response.FromString(answer.content) if is_proto else answer.json()
        except (DecodeError, requests.JSONDecodeError) as error:
            raise BadUpstream(f"The answer of the model server at {self._address} is damaged.") from error

    def _call(self, body: bytes) -> pb.Response:
        import grpc

        if self._channel is None:
            limits = [("grpc.max_receive_message_length", self._max_body_size)]
            limits.append(("grpc.max_send_message_length", self._max_body_size))
            self._channel = grpc.insecure_channel(self._address, limits)
        method = self._channel.unary_unary(
            f"/{meta.SERVICE}/{meta.INFERENCE}", response_deserializer=pb.Response.FromString
        )
        try:
            response: pb.Response = method(body, timeout=self._timeout)
        except grpc.RpcError as error:
            known = _BY_GRPC_CODE.get(error.code().name, BadUpstream)
            raise known(f"The model server at {self._address}: {error.details()[:_LONGEST_TEXT]}") from error
        return response

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None


def _encode_proto(tensors: Sequence[Tensor], fetch: Sequence[str], log_id: int) -> bytes:
    return b"".join(messages.encode_request(tensors, fetch, log_id))


def _parse_url(url: str) -> tuple[str, str]:
    """The (scheme, "host:port") of a URL; http where it has no scheme."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        endpoint.parse(parts.netloc)
    except ConfigError:
        parts = parts._replace(scheme="")
    if parts.scheme not in ("http", "https"):
        raise BadCall("url not right, it should be like 127.0.0.1:9393 or http://127.0.0.1:9393")
    return parts.scheme, parts.netloc
