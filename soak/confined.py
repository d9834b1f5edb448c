"""`python -m soak.confined COMMAND...` runs a Python command as nobody, where no file system can be written to.

It takes root, and Linux's unshare, mount and setpriv. The process keeps its id and its open files, and all that is
mounted anew is gone with it. Folders that only root may enter, on the way to what the command needs, are replaced by
empty ones that hold nothing else.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534
ROOT = Path(__file__).resolve().parent.parent
_TOOLS = ("unshare", "mount", "setpriv")
_INSIDE = "--inside"
_ASIDE = Path("/media")
"""A standard folder, hidden for the command: there lies what is needed while its own place is rebuilt."""
_DROPPED = ("HOME", "TMPDIR", "USER", "LOGNAME", "PYTHONDONTWRITEBYTECODE")


def fault() -> str:
    """Why it cannot be done here; empty if it can."""
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        return f"{', '.join(missing)} not installed"
    if os.geteuid():
        return "only root can start a process as another user"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    return "this machine grants no mount namespace" if tried.returncode else ""


def writable_mounts(pid: int) -> list[str]:
    """Mount points that a process sees as writable."""
    found: dict[str, bool] = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        found[fields[4]] = "ro" not in fields[5].split(",")  # of those on one point, the last one is seen
    return sorted(point for point, writable in found.items() if writable)


def rights(pid: int) -> tuple[set[int], int]:
    """The user and group ids of a process, and its effective capabilities."""
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        if ":" in line
    )
    return {int(word) for word in (status["Uid"] + status["Gid"]).split()}, int(status["CapEff"], 16)


def _closed(path: Path) -> Path | None:
    """The first folder on the way that others than its owner may not enter."""
    for folder in [*reversed(path.parents), path]:
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _open_ways(needed: list[Path]) -> None:
    """Let anyone come to the needed folders."""
    _mount("-t", "tmpfs", "none", str(_ASIDE))
    ways = [(path, closed) for path in needed if (closed := _closed(path))]
    for number, (path, _) in enumerate(ways):
        (_ASIDE / str(number)).mkdir()
        _mount("--bind", str(path), str(_ASIDE / str(number)))
    for closed in {closed for _, closed in ways}:
        _mount("-t", "tmpfs", "-o", "mode=755", "none", str(closed))
    for number, (path, _) in enumerate(ways):
        path.mkdir(parents=True, exist_ok=True)
        _mount("--bind", str(_ASIDE / str(number)), str(path))


def _mount_points() -> Iterator[str]:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        yield line.split()[1]


def main() -> None:
    """First outside of the new namespace, then inside."""
    command = sys.argv[1:]
    if command[0] != _INSIDE:
        again = [sys.executable, "-m", "soak.confined", _INSIDE, *command]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again])
    _open_ways([Path(sys.base_prefix).resolve(), Path(sys.prefix), ROOT])
    for point in reversed([*_mount_points()]):
        # One that another hides cannot be changed, nor can it be written to.
        subprocess.run(["mount", "-o", "remount,bind,ro", point], capture_output=True)
    environ = {name: text for name, text in os.environ.items() if name not in _DROPPED}
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    os.chdir(ROOT)
    os.execvpe("setpriv", ["setpriv", *user, "--inh-caps=-all", sys.executable, *command[1:]], environ)


if __name__ == "__main__":
    main()
