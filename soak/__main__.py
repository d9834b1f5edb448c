"""The long form of every scenario of docs/reliability.md, over loopback; writes that file.

make soak                              all of it
make soak SOAK="--quick"               a tenth of the time and of the requests
make soak SOAK="--only O1 M1"          some; the other lines of the report stay as they are
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Sequence

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
from soak.scenario import Context, Finding, Options, Scenario

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
    context = Context(options)
    wanted = [scenario for scenario in SCENARIOS if not args.only or scenario.id in args.only]
    _say_how_long(wanted, args.quick)
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
            entry = {"figure": found.figure, "passed": found.passed, "seconds": round(seconds), "quick": args.quick}
            _write({**_read(), scenario.id: entry}, args.note)
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


def _say_how_long(scenarios: Sequence[Scenario], quick: bool) -> None:
    """What the same form of them took when it was run last."""
    known = [found for s in scenarios if (found := _read().get(s.id)) and found["quick"] is quick]
    minutes = sum(float(str(found["seconds"])) for found in known) / 60
    print(f"{len(known)} of {len(scenarios)} scenarios took {minutes:.0f} minutes when last run.", file=sys.stderr)


def _read() -> dict[str, dict[str, object]]:
    """What earlier runs found, by scenario."""
    found: dict[str, dict[str, object]] = {}
    if FINDINGS.exists():
        found = json.loads(FINDINGS.read_text(encoding="utf-8"))
    return found


def _write(findings: dict[str, dict[str, object]], note: str) -> None:
    FINDINGS.write_text(json.dumps(findings, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    rows = []
    for scenario in SCENARIOS:
        if found := findings.get(scenario.id):
            short = " (quick form)" if found["quick"] else ""
            word = _WORDS[found["passed"]]  # type: ignore[index]
            rows.append(f"| {scenario.id} | {scenario.done} | {found['figure']}{short} | {word} |")
    machine = result.machine()
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    REPORT.write_text(
        f"""# What the services survive

Written by `make soak`: every scenario in its long form, against the commands that users start, over loopback.
`make test` holds a quick form of each.

Machine: {machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gb"]} GB, Python {machine["python"]}, {packages};
commit {machine["commit"]}, {machine["date"]}. {note}

"Alive" means that the next valid request is answered rightly and the liveness probe in under 100 ms.

| id | what was done | figure | pass |
|---|---|---|---|
"""
        + "\n".join(rows)
        + "\n",
        encoding="utf-8",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ID", choices=[s.id for s in SCENARIOS], help="these scenarios")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time and of the requests")
    parser.add_argument("--requests", type=int, default=20_000, help="of M1 (default: %(default)s)")
    parser.add_argument("--overload-seconds", type=float, default=60, help="of O1 (default: %(default)s)")
    parser.add_argument("--fuzz-seconds", type=int, default=40, help="of each entry in D4 (default: %(default)s)")
    parser.add_argument(
        "--examples", type=int, default=3000, help="of schemathesis, an operation (default: %(default)s)"
    )
    parser.add_argument("--note", default="", help="a sentence about the machine for the report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
