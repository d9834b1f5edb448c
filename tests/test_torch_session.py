"""What a session of PyTorch on a GPU keeps. Stubs that hold to its rules play CUDA; the tensors are the CPU's."""

import contextlib

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make DEVICE=gpu test installs it")

from ocr_serving.engine import torch_session  # noqa: E402  # it needs PyTorch
from ocr_serving.engine.torch_session import GpuSession  # noqa: E402


class Cuda:
    """Pools that live as long as a graph is in them, as PyTorch's do."""

    def __init__(self) -> None:
        self.pools = 0
        self.dead: set[int] = set()
        self.graphs: dict[int, int] = {}
        self.emptied = 0
        self.failure: Exception | None = None

    def new_pool(self) -> int:
        self.pools += 1
        return self.pools


class Graph:
    cuda: Cuda

    def capture_begin(self, pool: int, capture_error_mode: str) -> None:
        if pool in self.cuda.dead:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        if self.cuda.failure is not None:
            raise self.cuda.failure
        self.pool = pool
        self.cuda.graphs[pool] = self.cuda.graphs.get(pool, 0) + 1

    def capture_end(self) -> None:
        pass

    def replay(self) -> None:
        self.played = True

    def __del__(self) -> None:
        if hasattr(self, "pool"):
            self.cuda.graphs[self.pool] -= 1
            if not self.cuda.graphs[self.pool]:
                self.cuda.dead.add(self.pool)


class Stream:
    def __init__(self, device: object) -> None:
        self.device = device

    def synchronize(self) -> None:
        pass


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    graph = type("CUDAGraph", (Graph,), {"cuda": cuda})
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", cuda.new_pool)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(cuda, "emptied", cuda.emptied + 1))
    return cuda


class Doubling:
    """A calculation that counts how often it is done."""

    def __init__(self) -> None:
        self.times = 0
        self.failure: Exception | None = None

    def __call__(self, inputs):
        self.times += 1
        if self.failure is not None:
            raise self.failure
        return [2 * inputs[0]]


def times_done(session: GpuSession, calculate: Doubling, length: int) -> int:
    """How often the calculation is done for one run."""
    before = calculate.times
    session.run(calculate, [torch.ones(length)])
    return calculate.times - before


@pytest.fixture
def session(cuda: Cuda) -> GpuSession:
    return GpuSession(torch.device("cpu"))


def test_what_comes_a_second_time_is_recorded_and_then_played_back(session):
    calculate = Doubling()
    assert [times_done(session, calculate, 3) for _ in range(4)] == [1, 2, 0, 0]


def test_after_many_other_shapes_it_is_recorded_anew(session):
    calculate = Doubling()
    for _ in range(2):
        assert [times_done(session, calculate, 3) for _ in range(3)] == [1, 2, 0]
        for length in range(1000, 1000 + torch_session._KINDS):
            times_done(session, calculate, length)
        session.run(calculate, [torch.ones(4)])


def test_a_failed_recording_does_not_fail_the_request_and_is_the_last(session, cuda):
    calculate = Doubling()
    cuda.failure = RuntimeError("operation not permitted when stream is capturing")
    for _ in range(3):
        assert session.run(calculate, [torch.ones(2)])[0].tolist() == [2, 2]
    cuda.failure = None
    assert [times_done(session, calculate, 5) for _ in range(3)] == [1, 1, 1]


def test_lack_of_memory_while_recording_is_no_reason_never_to_record_again(session, cuda):
    calculate = Doubling()
    cuda.failure = torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert [times_done(session, calculate, 5) for _ in range(2)] == [1, 1]
    cuda.failure = None
    assert [times_done(session, calculate, 5) for _ in range(2)] == [2, 0]


def test_lack_of_memory_gives_back_what_recordings_hold(session, cuda):
    calculate = Doubling()
    for _ in range(3):
        session.run(calculate, [torch.ones(5)])
    calculate.failure = torch.cuda.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.cuda.OutOfMemoryError):
        session.run(calculate, [torch.ones(6)])
    assert cuda.emptied == 1
    assert not any(cuda.graphs.values())
    calculate.failure = None
    assert [times_done(session, calculate, 5) for _ in range(3)] == [1, 2, 0]


def test_recordings_are_bounded_by_their_size(session, cuda, monkeypatch):
    monkeypatch.setattr(torch_session, "_RECORDED_BYTES", 1000)
    monkeypatch.setattr(torch_session, "_LARGEST_BYTES", 800)
    calculate = Doubling()
    assert [times_done(session, calculate, 200) for _ in range(3)] == [1, 1, 1]  # 1600 bytes
    assert [times_done(session, calculate, 80) for _ in range(3)] == [1, 2, 0]  # 640 bytes
    assert [times_done(session, calculate, 60) for _ in range(3)] == [1, 2, 0]  # 480 more
    assert sum(cuda.graphs.values()) == 1
