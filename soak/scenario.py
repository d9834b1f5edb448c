"""What a scenario is, and what it stands on."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import psutil
import server_process
from harness.images import ROOT
from harness.services import Models
from server_process import ServerProcess

from soak import client
from soak.client import Reply

LIVE_SECONDS = 0.1
"""What the liveness probe may take, in a service that is called alive."""
FORMS = {"long": "", "quick": " (quick form)", "short": " (shorter than usual)"}
"""Form of a scenario -> how the report calls it."""
SAMPLE = (ROOT / "rec_img/line_1.png").read_bytes
SAMPLE_TEXT = "欢迎光临"


@dataclass(frozen=True)
class Options:
    """How long it may take.

    Attributes:
        quick: a tenth of the time and of the requests.
        requests: of the memory scenario.
        overload_seconds: of the open loop.
        fuzz_seconds: of each fuzzed entry.
        examples: of schemathesis, for each operation.
    """

    quick: bool = False
    requests: int = 20_000
    overload_seconds: float = 60
    fuzz_seconds: int = 40
    examples: int = 3000

    def scaled(self, count: int) -> int:
        """The count, or a tenth of it in the quick form."""
        return max(1, count // 10) if self.quick else count


@dataclass(frozen=True)
class Finding:
    """What came out; `passed` is None where the scenario does not apply, and the figure says why."""

    figure: str
    passed: bool | None


@dataclass(frozen=True)
class Stack:
    """The OCR web service, the det model server that it calls and the rec model server that it owns."""

    web: ServerProcess
    det: ServerProcess

    @property
    def port(self) -> int:
        """The web service's."""
        return self.web.port

    @property
    def processes(self) -> dict[str, psutil.Process]:
        """Of the services: name -> process."""
        web = psutil.Process(self.web.process.pid)
        return {"web": web, "det": psutil.Process(self.det.process.pid), "rec": web.children()[0]}

    def metric(self, name: str, **labels: str) -> float:
        """A metric of the web service, summed over the labels not given."""
        total = 0.0
        for line in client.get(self.port, "/metrics").body.decode().splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def ask(self) -> Reply:
        """A valid request."""
        return client.post(self.port, client.body(SAMPLE()))

    def is_alive(self) -> bool:
        """Whether a valid request is answered rightly and the liveness probe in time."""
        reply = self.ask()
        live = min(client.get(self.port, "/health/live").seconds for _ in range(3))
        return reply.texts == [SAMPLE_TEXT] and live < LIVE_SECONDS

    def is_ready(self) -> bool:
        """Whether it says so itself."""
        return client.get(self.port, "/health/ready").status == 200


@dataclass
class Context:
    """What scenarios run in: the models, and a stack that many of them share.

    Attributes:
        options: how long they may take.
        notes: findings of one run that makes several scenarios.
    """

    options: Options
    notes: dict[str, Finding] = field(default_factory=dict)
    _exits: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def models(self) -> Models:
        """The default models."""
        return Models.fetch()

    @cached_property
    def shared(self) -> Stack:
        """A stack with the default settings; a scenario that harms it calls close()."""
        return self._exits.enter_context(self.stack())

    @contextmanager
    def stack(self, *flags: str, **environ: str) -> Iterator[Stack]:
        """A stack of its own, with further flags of the web service and OCR_* settings in the environment of both."""
        with ExitStack() as exits:
            os.environ.update(environ)
            exits.callback(lambda: [os.environ.pop(name) for name in environ])
            det = exits.enter_context(server_process.running(*self.det_command(), cwd=ROOT))
            yield Stack(exits.enter_context(server_process.running(*self.web_command(det.port, *flags), cwd=ROOT)), det)

    def det_command(self, port: int | None = None) -> tuple[list[str], int]:
        """Of the det model server, and its port."""
        return server_process.model_server(str(self.models.det), port)

    def web_command(self, det_port: int, *flags: str, door: str = "ocr_web") -> tuple[list[str], int]:
        """Of a web service, and its port."""
        models = [f"--{name.replace('_', '-')}={path}" for name, path in self.models.settings.items()]
        return server_process.web(door, *models, "--det-endpoint", f"127.0.0.1:{det_port}", *flags)

    def close(self) -> None:
        """Stop the shared stack; the next one to ask gets a new one."""
        self._exits.close()
        self._exits = ExitStack()
        self.__dict__.pop("shared", None)


@dataclass(frozen=True)
class Scenario:
    """One line of the report.

    Attributes:
        id: as docs/reliability.md names it.
        done: what is done, in words.
        run: does it.
        length: the option that says how long it takes; empty where none does.
    """

    id: str
    done: str
    run: Callable[[Context], Finding]
    length: str = ""

    def form(self, options: Options) -> str:
        """One of FORMS."""
        if options.quick:
            return "quick"
        short = self.length and getattr(options, self.length) < getattr(Options, self.length)
        return "short" if short else "long"


def seconds_until(condition: Callable[[], object], limit: float) -> float | None:
    """After how many seconds the condition held; None if it did not within the limit."""
    begin = time.monotonic()
    while time.monotonic() - begin < limit:
        if condition():
            return time.monotonic() - begin
        time.sleep(0.02)
    return None


def counts(statuses: dict[int, int]) -> str:
    """For example "12 x 200, 3 x 503"."""
    return ", ".join(f"{count} x {status or 'broken'}" for status, count in sorted(statuses.items())) or "none"
