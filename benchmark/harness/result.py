"""Result files and tables: what a script measured, on which machine, with which options."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.images import ROOT
from harness.measure import number
from ocr_serving.cores import usable_cores

RESULTS = ROOT / "benchmark" / "results"
_PACKAGES = ("openvino", "onnxruntime", "paddlepaddle", "numpy", "opencv-python-headless")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")

Result = dict[str, Any]


def parser(doc: str, name: str, *, images: bool = True) -> argparse.ArgumentParser:
    """The flags that every script has, or every script that reads images."""
    arguments = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if images:
        what = "folders of images, with labels.jsonl where F1 is wanted (default: the sample images in imgs/)"
        arguments.add_argument("--images", nargs="+", type=Path, default=[ROOT / "imgs"], metavar="FOLDER", help=what)
        arguments.add_argument("--limit", type=int, help="most images of a folder")
    arguments.add_argument(
        "--json", type=Path, default=RESULTS / f"{name}.json", help="result file (default: benchmark/results/)"
    )
    arguments.set_defaults(name=name)
    return arguments


def finish(args: argparse.Namespace, data: Result, markdown: Callable[[Result], str]) -> None:
    """Write the result file and print its tables."""
    result = {"benchmark": args.name, "machine": machine(), "options": _options(args), "data": data}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(markdown(data))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table: the first column left, the others right; numbers with three significant digits or none after
    the point, None as a dash."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def machine() -> dict[str, Any]:
    """What the figures depend on, without anything that tells whose machine it is."""
    return {
        "cpu": _cpu_field("model name") or platform.processor(),
        "cores": usable_cores(),
        "instructions": [flag for flag in _FLAGS if flag in _cpu_field("flags").split()],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value)
    return str(value)


def _options(args: argparse.Namespace) -> Mapping[str, Any]:
    """The flags and OCR_* settings in use; of folders only the names."""
    flags = {key: value for key, value in vars(args).items() if key not in ("name", "json")}
    if "images" in flags:
        flags["images"] = [folder.resolve().name for folder in args.images]
    settings = {key: value for key, value in os.environ.items() if key.startswith("OCR_") and "/" not in value}
    return flags | settings


def _cpu_field(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()
