"""Environments of peers: made once with pip under benchmark/.envs, then found there."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from harness.images import ROOT

ENVIRONMENTS = ROOT / "benchmark" / ".envs"


def python(requirements: Sequence[str]) -> str:
    """The interpreter of an environment that holds the requirements; ours where there are none.

    Raises:
        CalledProcessError: pip could not install them; it has said why.
    """
    if not requirements:
        return sys.executable
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    folder = ENVIRONMENTS / f"{requirements[0].partition('=')[0].partition('[')[0]}-{digest}"
    interpreter, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        print(f"Making an environment with {', '.join(requirements)}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *requirements], check=True)
        Path(done).touch()
    return str(interpreter)
