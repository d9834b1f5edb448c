"""Two connections joined to one: every byte passes, ends are passed on, what breaks or stalls one side ends both."""

import socket
import struct
import threading

import numpy as np
import pytest

from ocr_serving.server.splice import SplicedConnection

DATA = np.random.default_rng(0).bytes(5_000_000)


@pytest.fixture
def joined():
    """A client's socket, the library's socket, and the thread that serves the splice between them.

    The client may keep silent for 0.2 s at a time, and not read for as long.
    """
    client, outer = socket.socketpair()
    inner, library = socket.socketpair()
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        set_timeout(outer, option, 0.2)
    splice = SplicedConnection(outer, inner)
    serving = threading.Thread(target=splice.serve)
    serving.start()
    with client, outer, library:
        client.settimeout(10)
        library.settimeout(10)
        yield client, library, outer, serving
    serving.join(10)
    assert not serving.is_alive()


def set_timeout(sock, option, seconds):
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))


def sent(sock, data):
    """The data on its way, from a thread of its own; nothing follows it."""

    def send():
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def everything(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_both_directions_at_once_to_their_end(joined):
    client, library, _, serving = joined
    threads = [sent(client, DATA), sent(library, DATA[::-1])]
    found = []
    threads.append(threading.Thread(target=lambda: found.append(everything(library))))
    threads[-1].start()
    assert everything(client) == DATA[::-1]
    for thread in threads:
        thread.join(10)
    assert found == [DATA]
    serving.join(10)
    assert not serving.is_alive()


def test_a_client_that_has_said_all_still_hears_the_answer(joined):
    client, library, *_ = joined
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert everything(library) == b"question"
    sent(library, b"answer").join(10)
    assert everything(client) == b"answer"


def test_a_client_that_does_not_read_is_given_up(joined):
    _, library, outer, serving = joined
    set_timeout(outer, socket.SO_RCVTIMEO, 60)  # what it says is no matter
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        while True:
            library.sendall(DATA)
    serving.join(10)
    assert not serving.is_alive()


def test_a_silent_client_is_kept_until_the_library_hangs_up(joined):
    client, library, _, serving = joined
    serving.join(0.6)  # three times the listener's patience
    assert serving.is_alive()
    library.sendall(b"bye")
    library.close()
    assert everything(client) == b"bye"
    serving.join(10)
    assert not serving.is_alive()
