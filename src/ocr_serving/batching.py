"""Requests of several callers run together: Paddle Serving's asynchronous mode (--runtime_thread_num)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import numpy as np

from ocr_serving.deadline import Deadline, remaining
from ocr_serving.errors import DeadlineExceeded, EngineFailed
from ocr_serving.predictor.base import Array, Arrays, Predictor


@dataclass(frozen=True, eq=False)
class _Task:
    """Rows of one request that wait for their run."""

    feed: Mapping[str, Array]
    fetch: tuple[str, ...]
    deadline: Deadline | None
    rows: int
    done: Future[Arrays] = field(default_factory=Future)

    @property
    def kind(self) -> Hashable:
        """Tasks of one kind can run together: same inputs, types, inner shapes and outputs."""
        return self.fetch, tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(self.feed.items()))


class BatchingPredictor(Predictor):
    """Runs what waits at the same time in one go, as far as inner shapes are equal. See predictor.base.Predictor."""

    def __init__(self, predictor: Predictor, threads: int, rows: int) -> None:
        """
        Args:
            predictor: runs the model; closed with this one.
            threads: runs that go on at once.
            rows: most rows of a run; larger requests run in pieces.
        """
        self._predictor = predictor
        self._rows = rows
        self._waiting: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name="batching", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict."""
        counts = {len(array) if array.ndim and array.size else 0 for array in feed.values()}
        if len(counts) != 1 or 0 in counts:  # no batch dimension, or a bad request: not to be mixed with others
            return self._predictor.predict(feed, fetch, deadline)
        (rows,) = counts
        starts = range(0, rows, self._rows)
        pieces = [{name: array[at : at + self._rows] for name, array in feed.items()} for at in starts]
        tasks = [
            _Task(piece, tuple(fetch), deadline, min(self._rows, rows - at))
            for at, piece in zip(starts, pieces, strict=True)
        ]
        with self._changed:
            self._waiting.extend(tasks)
            self._changed.notify(len(tasks))
        answers = _answers(tasks, deadline)
        if len(answers) == 1:
            return answers[0]
        if not all(_has_rows(answer, task.rows) for answer, task in zip(answers, tasks, strict=True)):
            return self._predictor.predict(feed, fetch, deadline)  # a sum or the like, which pieces cannot make up
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def close(self) -> None:
        """See predictor.base.Predictor.close."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._predictor.close()

    def _work(self) -> None:
        while batch := self._next():
            self._run([task for task in batch if task.done.set_running_or_notify_cancel()])

    def _next(self) -> list[_Task]:
        """The tasks of the next run: the one that waits longest and others of its kind; none once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            first = self._waiting[0]
            batch, rows = [], 0
            for task in self._waiting:
                if task.kind == first.kind and rows + task.rows <= self._rows:
                    batch.append(task)
                    rows += task.rows
                if rows == self._rows:
                    break
            for task in batch:
                self._waiting.remove(task)
            return batch

    def _run(self, batch: list[_Task]) -> None:
        """Run the tasks together; where that fails, each alone, so that one bad request fails alone."""
        if not batch:
            return
        try:
            answers = self._run_together(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].done.set_exception(error)
            else:
                for task in batch:
                    self._run([task])
            return
        for task, answer in zip(batch, answers, strict=True):
            task.done.set_result(answer)

    def _run_together(self, batch: list[_Task]) -> list[Arrays]:
        first = batch[0]
        if len(batch) == 1:
            return [self._predictor.predict(first.feed, first.fetch, first.deadline)]
        feed = {name: np.concatenate([task.feed[name] for task in batch]) for name in first.feed}
        deadlines = [task.deadline for task in batch]
        last = None if None in deadlines else max((d for d in deadlines if d is not None), key=lambda d: d.at)
        outputs = self._predictor.predict(feed, first.fetch, last)
        if not _has_rows(outputs, sum(task.rows for task in batch)):
            raise EngineFailed("The model's outputs do not have a row for each row of its inputs.")
        ends = np.cumsum([task.rows for task in batch]).tolist()
        return [
            {name: array[end - task.rows : end] for name, array in outputs.items()}
            for task, end in zip(batch, ends, strict=True)
        ]


def _has_rows(outputs: Arrays, rows: int) -> bool:
    """Whether each array has one row for each of so many."""
    return all(array.ndim and len(array) == rows for array in outputs.values())


def _answers(tasks: Sequence[_Task], deadline: Deadline | None) -> list[Arrays]:
    """What the tasks end with.

    Raises:
        DeadlineExceeded: they were not all done in time.
    """
    _, late = wait([task.done for task in tasks], remaining(deadline))
    if late:
        for task in tasks:
            task.done.cancel()
        raise DeadlineExceeded("The time for this request ran out while it waited for the engine.")
    return [task.done.result() for task in tasks]
