"""The long form of every scenario of docs/reliability.md, over loopback; writes that file.

make soak                              all of it
make soak SOAK="--quick"               a tenth of the time and of the requests
make soak SOAK="--only O1 M1"          some; the other lines of the report stay as they are
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from harness import result
from harness.images import ROOT

from soak import (
    clock,
    correctness,
    decoding,
    hostile,
    limits,
    memory,
    observability,
    overload,
    packaging,
    processes,
    security,
    surroundings,
    upstream,
)
from soak.scenario import FORMS, Context, Finding, Options, Scenario

REPORT = ROOT / "docs" / "reliability.md"
FINDINGS = ROOT / "soak" / "findings.json"
_GROUPS = "LDOCRMSBH"
"""In the order of the report."""
_MODULES = (
    limits, decoding, overload, correctness, processes, upstream, surroundings, clock, memory, security, packaging,
    observability, hostile,
)  # fmt: skip
SCENARIOS: tuple[Scenario, ...] = tuple(
    sorted(
        (scenario for module in _MODULES for scenario in module.SCENARIOS),
        key=lambda scenario: (_GROUPS.index(scenario.id[0]), scenario.id),
    )
)
_WORDS = {True: "yes", False: "**no**", None: "does not apply"}


@dataclass(frozen=True)
class Row:
    """A finding, kept: its form (one of FORMS), and the commit and day of its run."""

    figure: str
    passed: bool | None
    seconds: int
    form: str
    commit: str
    date: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and write the report; 1 if something did not pass."""
    args = _parser().parse_args(argv)
    options = Options(
        args.quick,
        args.requests // 10 if args.quick else args.requests,
        args.overload_seconds / 4 if args.quick else args.overload_seconds,
        args.fuzz_seconds // 10 if args.quick else args.fuzz_seconds,
        args.examples // 10 if args.quick else args.examples,
    )
    context, machine = Context(options), result.machine()
    wanted = [scenario for scenario in SCENARIOS if not args.only or scenario.id in args.only]
    _say_how_long(wanted, options)
    failed, start = False, time.monotonic()
    try:
        for scenario in wanted:
            begin = time.monotonic()
            found = _run(scenario, context)
            failed |= found.passed is False
            seconds = time.monotonic() - begin
            print(
                f"{scenario.id:4} {_WORDS[found.passed]:14} {seconds:5.0f} s  {found.figure}",
                file=sys.stderr,
                flush=True,
            )
            row = Row(
                found.figure,
                found.passed,
                round(seconds),
                scenario.form(options),
                machine["commit"],
                machine["date"],
            )
            write({**read(), scenario.id: row})
    finally:
        context.close()
    print(f"{(time.monotonic() - start) / 60:.0f} minutes", file=sys.stderr)
    return int(failed)


def _run(scenario: Scenario, context: Context) -> Finding:
    try:
        return scenario.run(context)
    except Exception as error:  # one that breaks must not hide the others
        traceback.print_exc()
        context.close()
        return Finding(f"broke: {type(error).__name__}", False)


def _say_how_long(scenarios: Sequence[Scenario], options: Options) -> None:
    """What the same form of them took when it was run last."""
    rows = read()
    known = [row.seconds for s in scenarios if (row := rows.get(s.id)) and row.form == s.form(options)]
    minutes = sum(known) / 60
    print(f"{len(known)} of {len(scenarios)} scenarios took {minutes:.0f} minutes when last run.", file=sys.stderr)


def read() -> dict[str, Row]:
    """What earlier runs found, by scenario."""
    if not FINDINGS.exists():
        return {}
    return {name: Row(**fields) for name, fields in json.loads(FINDINGS.read_text(encoding="utf-8")).items()}


def write(findings: Mapping[str, Row]) -> None:
    """Keep the findings, and report them."""
    kept = {name: asdict(row) for name, row in findings.items()}
    FINDINGS.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    rows = []
    for scenario in SCENARIOS:
        if row := findings.get(scenario.id):
            cells = scenario.id, scenario.done, _in_words(row.figure) + FORMS[row.form], _WORDS[row.passed]
            rows.append(f"| {' | '.join(cells)} | {row.commit}, {row.date} |")
    machine = result.machine()
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    REPORT.write_text(
        f"""# What the services survive

Written by `make soak`: scenarios against the commands that users start, over loopback. The last column says which
commit was run, and when.

Machine: {machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gb"]} GB, Python {machine["python"]}, {packages}.

"Alive" means that the next valid request is answered rightly and the liveness probe in under 100 ms.

| id | what was done | figure | pass | run |
|---|---|---|---|---|
"""
        + "\n".join(rows)
        + "\n",
        encoding="utf-8",
    )


def _in_words(figure: str) -> str:
    """A figure without Python's ways of writing lists and truths."""
    plain = re.sub(r"[\[\]{}]|(?<!\w)'|'(?!\w)", "", figure)
    return re.sub(r"\bTrue\b", "yes", re.sub(r"\bFalse\b", "no", plain))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ID", choices=[s.id for s in SCENARIOS], help="these scenarios")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time and of the requests")
    usual = Options()
    for flag, kind, usual_value, what in (
        ("--requests", int, usual.requests, "of M1"),
        ("--overload-seconds", float, usual.overload_seconds, "of O1"),
        ("--fuzz-seconds", int, usual.fuzz_seconds, "of each entry in D4"),
        ("--examples", int, usual.examples, "of schemathesis, an operation"),
    ):
        parser.add_argument(flag, type=kind, default=usual_value, help=f"{what} (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
