"""Collects the result files into docs/benchmarks.md, with plots beside it.

    .venv/bin/python benchmark/report.py

Every script in benchmark/ leaves a result file in benchmark/results/; those that are there are reported. Results of
another processor stand beside it: peers-avx512.json beside peers.json.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.images import ROOT
from harness.result import RESULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BENCHMARKS = {
    "peers": "Against other systems",
    "sweep": "Settings: accuracy and time",
    "stages": "Where the time of a request goes",
    "engines": "Engines and their floor",
    "load": "Under load",
    "scaling": "How the cost grows",
    "protocols": "Protocols of the model server",
    "start": "Start, memory, size",
}
"""Script -> its heading."""
PNG_DPI = 110
INTRODUCTION = """# Benchmarks

Written by `benchmark/report.py`; do not edit. Each part is measured by one command, given with it; figures of one table
come from one run and compare as ratios, those of different machines or runs do not. The scripts need the development
tools, which `make check` installs.
"""


def report(results: Path, out: Path) -> None:
    """Write the document `out`, and its plots into the folder that has its name without the suffix."""
    plots = out.with_suffix("")
    plots.mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION]
    for name, heading in BENCHMARKS.items():
        files = [results / f"{name}.json", *sorted(results.glob(f"{name}-*.json"))]
        if found := [file for file in files if file.is_file()]:
            parts.append(_heading(name, heading))
            parts += [_figures(name, heading, file, plots) for file in found]
    out.write_text("\n".join(parts), encoding="utf-8")


def _heading(name: str, heading: str) -> str:
    """One script's heading and description."""
    title, command, *rest = (import_module(name).__doc__ or "").strip().split("\n\n")
    about = "\n\n".join([title, *rest])
    return f"## {heading}\n\n{about}\n\n```\n{command.strip()}\n```\n"


def _figures(name: str, heading: str, file: Path, plots: Path) -> str:
    """The machine, tables and plots of one result file."""
    script = import_module(name)
    result = json.loads(file.read_text(encoding="utf-8"))
    suffix = file.stem.removeprefix(name)
    pictures = []
    figures = script.figures(result["data"]) if hasattr(script, "figures") else {}
    for plot, figure in figures.items():
        _save(figure, plots / f"{plot}{suffix}")
        pictures.append(f"![{heading}]({plots.name}/{plot}{suffix}.svg)\n")
    options = "  \n".join(f"{key}: {_option(value)}" for key, value in result["options"].items() if value is not None)
    return "\n".join(
        [
            f"{_machine(result['machine'])}\n",
            f"<details><summary>Options</summary>\n\n{options}\n\n</details>\n",
            script.markdown(result["data"]),
            *pictures,
        ]
    )


def _machine(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['date']}, commit {machine['commit']}; {machine['cpu']}, {machine['cores']} cores "
        f"({', '.join(machine['instructions'])}), {machine['memory_gb']} GB; Python {machine['python']}, {packages}."
    )


def _option(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _save(figure: Figure, stem: Path) -> None:
    """As SVG and as PNG: text stays text in the former, and equal data give equal files."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmark"}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=PNG_DPI, metadata={"Software": None})


def main() -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the document")
    args = parser.parse_args()
    report(args.results, args.out)


if __name__ == "__main__":
    main()
