"""The HTTP and gRPC client under its old name: errors of servers, damage, and servers that are not there."""

import socket
import time
from unittest import mock

import pytest
from canned_answers import IMAGE, Server, http_clients, response

from ocr_serving.errors import (
    BadInput,
    BadUpstream,
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    LimitExceeded,
    NotFound,
    Overloaded,
    UpstreamUnavailable,
)
from paddle_serving_client import HttpClient


@pytest.fixture
def client(tmp_path):
    with http_clients(tmp_path) as make:
        yield make


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadInput),
        (404, NotFound),
        (422, LimitExceeded),
        (500, EngineFailed),
        (503, Overloaded),
        (504, DeadlineExceeded),
        (501, BadUpstream),
    ],
)
def test_error_statuses(client, status, error):
    sentence = b"[127.0.0.1:1][E1003]Fail to parse http body"
    with Server(sentence, "text/plain", status, [("x-bd-error-code", 1003)]) as server:
        for raise_on_error in (False, True):
            made = client(raise_on_error=raise_on_error)
            made.connect(server.address)
            if raise_on_error:
                with pytest.raises(error, match="Fail to parse http body"):
                    made.predict({"image": IMAGE})
            else:
                assert made.predict({"image": IMAGE}) is None


def test_no_tls_connection_is_told_from_nobody_there(client):
    with Server() as server:
        made = client(raise_on_error=True)
        made.connect(f"https://{server.address}")
        with pytest.raises(UpstreamUnavailable, match=r"speaks plain http, or its certificate .* REQUESTS_CA_BUNDLE"):
            made.predict({"image": IMAGE})


def test_this_machine_is_reached_without_the_proxy_of_the_environment(client, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Server(response().SerializeToString(), "application/proto") as server:
        made = client(raise_on_error=True)
        made.connect(server.address)
        assert made.predict({"image": IMAGE}) == response()


@pytest.mark.parametrize("use_grpc", [False, True])
def test_nobody_there(client, use_grpc):
    made = client(raise_on_error=True)
    made.set_use_grpc_client(use_grpc)
    made.connect("127.0.0.1:1")
    with pytest.raises(UpstreamUnavailable):
        made.predict({"image": IMAGE})


@pytest.mark.parametrize("use_grpc", [False, True])
def test_a_silent_server_costs_the_timeout(client, use_grpc):
    begin = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = client(raise_on_error=True)
        made.set_use_grpc_client(use_grpc)
        made.set_timeout_ms(200)
        made.connect(f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises((DeadlineExceeded, UpstreamUnavailable)):
            made.predict({"image": IMAGE})
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("content_type", ["application/proto", "application/json"])
def test_damaged_answers(client, content_type):
    with Server(b"\x0a\xff", content_type) as server:
        made = client(raise_on_error=True)
        made.connect(server.address)
        with pytest.raises(BadUpstream, match="damaged"):
            made.predict({"image": IMAGE})


def test_connections_that_cannot_be_made_are_tried_again(client):
    """Quirk of the original: set_max_retries was a NameError."""
    with mock.patch.object(socket.socket, "connect", side_effect=ConnectionRefusedError) as connects:
        made = client()
        made.set_max_retries(2)
        made.connect("127.0.0.1:1")
        assert made.predict({"image": IMAGE}) is None
    assert connects.call_count == 3


def test_setting_up_wrongly_is_said_in_words(client):
    made = client()
    with pytest.raises(ValueError, match="only support 1 endpoint"):
        made.connect(["127.0.0.1:1", "127.0.0.1:2"])
    for url in ("127.0.0.1", "http://", "127.0.0.1:x", "ftp://127.0.0.1:21"):
        with pytest.raises(ValueError, match="url not right"):
            made.connect(url)
    with pytest.raises(ValueError, match="timeout_ms must be int"):
        made.set_timeout_ms("1")
    with pytest.raises(ValueError, match="retry_times must be int"):
        made.set_max_retries("1")
    with pytest.raises(ConfigError, match="Encrypted"):
        made.connect("127.0.0.1:1", encryption=True)
    with pytest.raises(ConfigError, match="Encrypted"):
        made.use_key("key")
    with pytest.raises(ConfigError, match="load_client_config"):
        HttpClient().predict({"image": IMAGE})


def test_host_names_are_addresses_too(client):
    """Quirk of the original: it took dotted IPv4 only."""
    with Server(response().SerializeToString()) as server:
        made = client()
        made.connect(server.address.replace("127.0.0.1", "localhost"))
        assert made.predict({"image": IMAGE}) == response()
