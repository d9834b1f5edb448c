"""Requests of several callers in one run: who gets what, and who fails."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rpc_peers import wait_until

from ocr_serving.batching import BatchingPredictor
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadInput, DeadlineExceeded, EngineFailed

BAD = 666


class Engine:
    """Twice its input; breaks on BAD in any row. The first run waits until released, so that others gather."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.started = threading.Event()
        self.release = threading.Event()
        self.closed = False

    def predict(self, feed, fetch=(), deadline=None):
        x = feed["x"]
        self.rows.append(len(x) if x.ndim else -1)
        self.started.set()
        assert self.release.wait(60)
        if deadline is not None:
            deadline.check("before the engine could start")
        if fetch == ("nope",):
            raise BadInput("Unknown fetch.")
        if (x == BAD).any():
            raise EngineFailed("The engine broke.")
        return {"y": 2 * x}

    def close(self):
        self.closed = True


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.release.set()


class Callers:
    """Calls of a predictor, the first of which is at work while the others gather."""

    def __init__(self, engine: Engine, rows: int = 8) -> None:
        self.engine = engine
        self.predictor = BatchingPredictor(engine, 1, rows)
        self._pool = ThreadPoolExecutor(16)
        self._first = self.call([[0]])
        assert engine.started.wait(60)

    def call(self, x, fetch=(), deadline=None):
        return self._pool.submit(self.predictor.predict, {"x": np.array(x, np.float32)}, fetch, deadline)

    def gathered(self, count: int) -> None:
        """Let the engine go on once so many pieces wait."""
        wait_until(lambda: len(self.predictor._waiting) == count)
        self.engine.release.set()
        assert self._first.result(60)["y"] == 0


def test_what_waits_together_runs_together_and_everyone_gets_his_own(engine):
    callers = Callers(engine)
    calls = [callers.call([[i]]) for i in range(5)]
    callers.gathered(5)
    assert [call.result(60)["y"].tolist() for call in calls] == [[[2 * i]] for i in range(5)]
    assert engine.rows == [1, 5]


def test_only_equal_inner_shapes_and_outputs_run_together(engine):
    callers = Callers(engine)
    calls = [callers.call([[1]]), callers.call([[1, 2]]), callers.call([[3]]), callers.call([[4]], ("y",))]
    callers.gathered(4)
    assert [call.result(60)["y"].tolist() for call in calls] == [[[2]], [[2, 4]], [[6]], [[8]]]
    assert engine.rows[0] == 1
    assert sorted(engine.rows[1:]) == [1, 1, 2]


def test_no_run_has_more_rows_than_allowed(engine):
    """A request that is larger alone runs in pieces, and gets its rows back in order."""
    callers = Callers(engine, rows=4)
    large, small = callers.call([[i] for i in range(10)]), callers.call([[20], [21]])
    callers.gathered(4)
    assert large.result(60)["y"].ravel().tolist() == [2 * i for i in range(10)]
    assert small.result(60)["y"].ravel().tolist() == [40, 42]
    assert max(engine.rows) == 4
    assert sum(engine.rows) == 13


def test_a_large_request_to_a_model_that_sums_up_is_not_cut():
    class Mean:
        def predict(self, feed, fetch=(), deadline=None):
            return {"mean": feed["x"].mean(axis=0, keepdims=bool(fetch))}

    predictor = BatchingPredictor(Mean(), 1, 4)
    for fetch in ((), ("mean",)):
        mean = predictor.predict({"x": np.arange(10.0)[:, None]}, fetch)["mean"]
        assert mean.ravel().tolist() == [4.5]


def test_one_bad_request_fails_alone(engine):
    callers = Callers(engine)
    calls = [callers.call([[value]]) for value in (1, BAD, 2)]
    callers.gathered(3)
    assert calls[0].result(60)["y"] == 2
    with pytest.raises(EngineFailed):
        calls[1].result(60)
    assert calls[2].result(60)["y"] == 4


def test_a_spent_deadline_costs_no_run_and_nobody_else_anything(engine):
    callers = Callers(engine)
    late, patient = callers.call([[1]], deadline=Deadline.after(0.05)), callers.call([[2]])
    with pytest.raises(DeadlineExceeded):
        late.result(60)
    callers.gathered(2)
    assert patient.result(60)["y"] == 4
    assert engine.rows == [1, 1]


def test_what_has_no_rows_is_answered_as_without_batching(engine):
    engine.release.set()
    predictor = BatchingPredictor(engine, 1, 8)
    assert predictor.predict({"x": np.float32(3)})["y"] == 6
    for shape in ((0, 2), (2**50, 0)):  # cut up, the latter would fill the memory
        with pytest.raises(BadInput, match="Unknown fetch"):
            predictor.predict({"x": np.zeros(shape, np.float32)}, ("nope",))


def test_closing_ends_the_threads_and_frees_the_model(engine):
    engine.release.set()
    before = set(threading.enumerate())
    predictor = BatchingPredictor(engine, 3, 8)
    assert predictor.predict({"x": np.ones((2, 2), np.float32)})["y"].sum() == 8
    predictor.close()
    assert engine.closed
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "batching"]
