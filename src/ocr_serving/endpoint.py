"""Network addresses as users write them, "host:port", and sockets that listen on them."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

from ocr_serving.errors import ConfigError


def parse(endpoint: str) -> tuple[str, int]:
    """(host, port) of "host:port" or "[::1]:port".

    Raises:
        ConfigError: it is neither.
    """
    host, colon, port = endpoint.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    if not (colon and is_port and _is_host(host) and (":" in host) == bracketed):
        raise ConfigError(f"{endpoint!r} is no address; write host:port, for example 127.0.0.1:9293.")
    return host, int(port)


def join(host: str, port: int) -> str:
    """The address "host:port", as parse() reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine reaches a server that listens there."""
    return host in ("127.0.0.1", "::1", "localhost")


def proxies(url: str) -> dict[str, str]:
    """What requests is to be told of proxies for a URL: this machine is reached without those of the environment."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # requests says that it is no URL
        return {}
    return {"no_proxy": host} if is_loopback(host) else {}


def no_tls(address: str) -> str:
    """The sentence for requests' SSLError."""
    return (
        f"No TLS connection to {address}: it speaks plain http, or its certificate is not trusted; the environment "
        "variable REQUESTS_CA_BUNDLE names a file of those that are."
    )


def of_socket(sock: socket.socket) -> str:
    """The address that a socket is bound to."""
    return join(*sock.getsockname()[:2])


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening yet: clients are refused.

    Raises:
        ConfigError: it is no address, or taken, or not this machine's.
    """
    if not _is_host(host):
        raise ConfigError(f"{host!r} is no host to listen on; write a name or an address, for example 127.0.0.1.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise cannot_listen(join(host, port), error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise cannot_listen(join(host, port), error) from error
    return bound


def cannot_listen(endpoint: str, error: OSError) -> ConfigError:
    """The sentence for a bind() or listen() that failed."""
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"{endpoint} is taken by another process; choose another port with --port.")
    return ConfigError(f"Cannot listen on {endpoint}: {error.strerror}.")


def _is_host(host: str) -> bool:
    """Whether the system may be asked for it: Python encodes names before, and fails on those that cannot be any."""
    try:
        return bool(host.encode("idna")) and not set(host) & set("/ \t\r\n")
    except UnicodeError:
        return False
