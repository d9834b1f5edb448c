"""Network addresses as users write them, "host:port", and sockets that listen on them."""

from __future__ import annotations

import errno
import socket

from ocr_serving.errors import ConfigError


def parse(endpoint: str) -> tuple[str, int]:
    """(host, port) of "host:port" or "[::1]:port".

    Raises:
        ConfigError: it is neither.
    """
    host, colon, port = endpoint.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"{endpoint!r} is no address; write host:port, for example 127.0.0.1:9293.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def of_socket(sock: socket.socket) -> str:
    """The address that a socket is bound to."""
    return _join(*sock.getsockname()[:2])


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening yet: clients are refused.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise cannot_listen(_join(host, port), error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise cannot_listen(_join(host, port), error) from error
    return bound


def cannot_listen(endpoint: str, error: OSError) -> ConfigError:
    """The sentence for a bind() or listen() that failed."""
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"{endpoint} is taken by another process; choose another port with --port.")
    return ConfigError(f"Cannot listen on {endpoint}: {error.strerror}.")


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
