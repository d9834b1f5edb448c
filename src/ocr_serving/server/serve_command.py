"""`python3 -m paddle_serving_server.serve`: a model, several in sequence, or det and rec chained, served on a port."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from ocr_serving import command_line, settings
from ocr_serving.errors import ConfigError
from ocr_serving.server import process, serve_flags
from ocr_serving.server.limits import Limits
from ocr_serving.server.process import Plan
from ocr_serving.server.workflow import (
    BATCH_ROWS,
    DETECTION,
    INFER,
    OPS,
    READER,
    RESPONSE,
    TOUCHED,
    Loaded,
    Step,
    Workflow,
)
from ocr_serving.settings import Settings

LEAST_BODY = 64 * 1024 * 1024
"""A smaller --max_body_size is passed over, as by the original."""
SUCCESS = "C++ Serving service started successfully!"
"""What the original's binary says once it serves."""
_CPU = ("", "-1")
"""--gpu_ids for the CPU."""

_T = TypeVar("_T")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        argv: arguments instead of the command line's.

    Returns:
        The exit status: 0 once stopped, 2 where the message on stderr says why it could not start.
    """
    args = serve_flags.parse(argv)
    if args.command != serve_flags.START:
        say(f"{args.command} does nothing here; end a server with Ctrl-C, or with SIGTERM to its process.")
        return 2
    return process.serve(partial(_plan, args), announce)


def announce(loaded: Loaded, address: str) -> None:
    """Print what is served and where, and the line of the original's binary, for which scripts wait."""
    command_line.announce(f"Serving {loaded.title} on {address} ({loaded.engines}).\n{SUCCESS}\n")


def limits(max_body_size: int | None) -> Limits:
    """The server's limits with that --max_body_size."""
    if max_body_size is None:
        return Limits()
    if max_body_size < LEAST_BODY:
        default = Limits()
        say(f"max_body_size: less than {LEAST_BODY} has no effect; the limit stays {default.body_bytes} bytes.")
        return default
    return Limits(body_bytes=max_body_size)


def on_device(chosen: Settings, gpu_ids: str) -> Settings:
    """The settings for a model on that GPU; "" and "-1" are the original's words for the CPU.

    Raises:
        ConfigError: it is no GPU's number.
    """
    first, *others = gpu_ids.split(",")
    if gpu_ids in _CPU:
        return chosen.replace(device="cpu")
    if not all(number.isascii() and number.isdigit() for number in (first, *others)):
        raise ConfigError(f"--gpu_ids takes the number of one GPU, or -1 for the CPU, not {gpu_ids!r}.")
    if others:
        say(f"gpu_ids {gpu_ids}: a model runs on one GPU here, this one on {first}.")
    return chosen.replace(device="gpu", gpu_id=first)


def _plan(args: argparse.Namespace) -> Plan:
    """What the flags ask for.

    Raises:
        ConfigError: they make no sense.
    """
    if not args.model:
        raise ConfigError("You must specify your serving model, for example: --model ocr_det_model.")
    if args.without_effect:
        say(f"{', '.join(args.without_effect)}: no effect here.")
    threads = process.default_threads() if args.thread is None else args.thread
    if threads < 1:
        raise ConfigError(f"--thread takes a number of 1 or more, not {threads}.")
    flags = {"host": args.host, "port": args.port, "precision": settings.precision_named(args.precision, say)}
    chosen = settings.load(flags)
    metrics_port = args.prometheus_port if args.enable_prometheus else None
    workflow = Workflow(_steps(args, chosen), chosen)
    return Plan(workflow, chosen, threads, limits(args.max_body_size), metrics_port)


def _steps(args: argparse.Namespace, chosen: Settings) -> list[Step]:
    ops = _ops(args.op, args.model)
    if len(ops) != len(args.model):
        raise ConfigError(f"{len(args.model)} models are given for {len(ops)} ops that take one: {', '.join(ops)}.")
    steps = []
    for i, (op, model) in enumerate(zip(ops, args.model, strict=True)):
        steps.append(
            Step(
                op,
                Path(model),
                chosen if args.gpu_ids is None else on_device(chosen, _one(args.gpu_ids, i)),
                runtime_threads=_count("--runtime_thread_num", args.runtime_thread_num or [0], i, 0),
                batch_rows=_count("--batch_infer_size", args.batch_infer_size or [BATCH_ROWS], i, 1),
                reload_on=(Path(model) / TOUCHED,),
            )
        )
    return steps


def _ops(given: Sequence[str] | None, models: Sequence[str]) -> list[str]:
    """The ops that take a model, in order.

    Raises:
        ConfigError: an op that there is not.
    """
    if not given:
        chained = len(models) == 2 and Path(models[0]).name == "ocr_det_model"  # the original's rule
        return [DETECTION, INFER] if chained else [INFER] * len(models)
    ops = []
    for text in given:
        op, _, without_model = text.partition(":")
        if op not in OPS or without_model not in ("", "0"):
            raise ConfigError(f"There is no op {text}; there are {', '.join(OPS)}.")
        if op in (READER, RESPONSE):
            continue  # every workflow begins and ends with them
        if without_model:
            raise ConfigError(f"{op} does not run without a model, as {text} asks.")
        ops.append(op)
    return ops


def _one(values: Sequence[_T], i: int) -> _T:
    """The i-th model's value; where there are fewer, they are taken again from the first on, as in the original."""
    return values[i % len(values)]


def _count(flag: str, values: Sequence[int], i: int, least: int) -> int:
    if min(values) < least:
        raise ConfigError(f"{flag} takes a number of {least} or more, not {min(values)}.")
    return _one(values, i)


def say(sentence: str) -> None:
    """Tell whoever started the server."""
    print(sentence, file=sys.stderr)
