"""The model server's threads, where no more of them can be started."""

import threading

import pytest

from ocr_serving.server.workers import Workers


def test_a_want_of_threads_takes_no_place_for_good(monkeypatch):
    def fails(_):
        raise RuntimeError("can't start new thread")

    workers = Workers(threads=2, waiting=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        for _ in range(workers.room + 1):
            with pytest.raises(RuntimeError):
                workers.submit(lambda: 1)
    assert [workers.submit(lambda i=i: i).result(10) for i in range(workers.room)] == list(range(workers.room))
    assert workers.drain(10)
