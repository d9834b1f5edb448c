"""`serving`: takes the flags and the files of Paddle Serving's server binary, so that SERVING_BIN may name it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ocr_serving import settings
from ocr_serving.server import gflags, process, serve_command
from ocr_serving.server.process import Plan
from ocr_serving.server.workdir import Workdir
from ocr_serving.server.workflow import Workflow
from ocr_serving.wire.frame import MAX_BODY

_SWITCHES = frozenset({"enable_model_toolkit", "use_calib", "enable_prometheus"})
_KINDS = ("inferservice", "workflow", "resource")
_FILES = {
    "inferservice_path": "./conf",
    "inferservice_file": "service.prototxt",
    "workflow_path": "./conf",
    "workflow_file": "workflow.prototxt",
    "resource_path": "./conf",
    "resource_file": "resource.prototxt",
}
"""Flags that name the files, and the binary's defaults."""
_NUMBERS = {"port": 8010, "num_threads": 0, "max_body_size": MAX_BODY, "prometheus_port": 19393}
"""Flags that take a number, and the binary's defaults."""
_OTHERS = frozenset({"precision", "reload_interval_s"})
_WITHOUT_EFFECT = frozenset({"max_concurrency", "bthread_concurrency", "request_cache_size"})
"""Paddle Serving writes these, -use_calib and -enable_model_toolkit into every command: nothing is said about them."""
_VALUES = _FILES.keys() | _NUMBERS.keys() | _OTHERS | _WITHOUT_EFFECT
_HELP = """usage: serving FLAGS

What SERVING_BIN names for Paddle Serving's command line, which writes: {flags}.
To serve a model by hand: python3 -m paddle_serving_server.serve --help"""
_DEFAULT_PRECISION = "fp32"
"""What Paddle Serving writes where its user asked for none; OCR_PRECISION=f32 asks for it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; see serve_command.main for the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if {argument.lstrip("-") for argument in arguments} & {"h", "help"}:
        print(_HELP.format(flags=" ".join(f"-{name}" for name in sorted(_VALUES | _SWITCHES))))
        return 0
    return process.serve(partial(_plan, arguments), serve_command.announce)


def _plan(arguments: Sequence[str]) -> Plan:
    """What the flags and the files ask for.

    Raises:
        ConfigError: they make no sense.
    """
    given = gflags.parse(arguments, _SWITCHES, _VALUES)
    if unknown := [f"-{name}" for name in given if name not in _VALUES | _SWITCHES]:
        serve_command.say(f"{', '.join(unknown)}: no effect here.")
    files = {**_FILES, **given}
    numbers = {name: gflags.number(name, given[name]) if name in given else _NUMBERS[name] for name in _NUMBERS}
    workdir = Workdir.read(*(Path(files[f"{of}_path"], files[f"{of}_file"]) for of in _KINDS))
    precision = given.get("precision")
    asked = None if precision == _DEFAULT_PRECISION else precision
    chosen = settings.load(
        {
            "port": workdir.port or numbers["port"],
            "precision": settings.precision_named(asked, serve_command.say),
            "reload_interval": given.get("reload_interval_s"),
        }
    )
    steps = [node.step(serve_command.on_device(chosen, node.gpu_ids)) for node in workdir.nodes]
    with_metrics = gflags.switch("enable_prometheus", given.get("enable_prometheus", "false"))
    return Plan(
        Workflow(steps, chosen),
        chosen,
        numbers["num_threads"] if numbers["num_threads"] > 0 else process.default_threads(),
        serve_command.limits(numbers["max_body_size"]),
        numbers["prometheus_port"] if with_metrics else None,
    )
