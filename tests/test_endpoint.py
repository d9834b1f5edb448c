import contextlib

import pytest

from ocr_serving import endpoint
from ocr_serving.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:9293", "127.0.0.1", 9293), ("[::1]:1", "::1", 1), ("det.example:65535", "det.example", 65535)],
)
def test_addresses_are_read(text, host, port):
    assert endpoint.parse(text) == (host, port)
    assert endpoint.join(host, port) == text


@pytest.mark.parametrize(
    "text",
    [
        "9293",
        ":9293",
        "host:",
        "host:0",
        "host:65536",
        "host:" + "9" * 5000,
        "10.0.0..1:9293",
        "a" * 64 + ":1",
        "http://det:9293",
        "::1:9293",
        "a b:1",
        "[::1:1",
        "[det]:1",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"is no address; write host:port, for example 127.0.0.1:9293"):
        endpoint.parse(text)


def test_a_host_that_cannot_be_one_is_refused():
    with pytest.raises(ConfigError, match=r"'a..b' is no host to listen on"):
        endpoint.bind("a..b", 1)


def test_a_taken_port_is_refused_with_the_way_out():
    with contextlib.closing(endpoint.bind("127.0.0.1", 0)) as bound:
        bound.listen()
        with pytest.raises(ConfigError, match=r"is taken by another process; choose another port with --port"):
            endpoint.bind(*bound.getsockname())
