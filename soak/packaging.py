"""S9: known faults of packages, pinned weights, and services that own nothing and can write nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import psutil
import server_process
from harness.images import ROOT
from packaging.requirements import Requirement

from ocr_serving import zoo
from ocr_serving.zoo_catalog import DICTIONARY, Member, Remote
from soak import client, confined, pictures
from soak.scenario import Context, Finding, Scenario, Stack

_KNOWN_FAULTY = "requests==2.19.0"
"""CVE-2018-18074: an audit that does not find it has no database to look into."""
_WRITE = """
import sys
def can_write(folder):
    try:
        open(f"{folder}/soak-was-here", "w").close()
    except OSError:
        return False
    return True
print([folder for folder in sys.argv[1:] if can_write(folder)])
"""


def s9(context: Context) -> Finding:
    """The three parts of it."""
    parts = [_confined(context), _weights(), _audited()]
    figure = "; ".join(part.figure for part in parts)
    return Finding(figure, all(part.passed is not False for part in parts))


def _confined(context: Context) -> Finding:
    """Both servers as nobody, on file systems that cannot be written to."""
    if why := confined.fault():
        return Finding(f"not shown that the services run as nobody on read-only file systems: {why}", None)
    det_command, det_port = context.det_command()
    with server_process.running([*_as_nobody(det_command)], det_port, ROOT) as det:
        command, port = context.web_command(det_port)
        with server_process.running(_as_nobody(command), port, ROOT) as web:
            stack = Stack(web, det)
            alive = stack.is_alive()
            pages = client.statuses(client.send_all(port, [client.body(pictures.page())] * 10, 2))
            held = {name: _rights(process) for name, process in stack.processes.items()}
            status = web.stop()
    folders = [str(ROOT), str(context.models.rec), tempfile.gettempdir(), "/dev/shm", "/"]
    command = [sys.executable, *_as_nobody(["-c", _WRITE, *folders])]
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    figure = (
        f"as user {confined.NOBODY}, without HOME, without capabilities, all mounts read-only ({', '.join(held)}: "
        f"{all(held.values())}): alive: {alive}, 10 pages {pages}, exit {status}; of {len(folders)} folders "
        f"could be written to: {tried}"
    )
    return Finding(figure, all(held.values()) and alive and pages == {200: 10} and status == 0 and tried == "[]")


def _as_nobody(command: list[str]) -> list[str]:
    return ["-m", "soak.confined", *command]


def _rights(process: psutil.Process) -> bool:
    """Whether it has none."""
    ids, capabilities = confined.rights(process.pid)
    return ids == {confined.NOBODY} and not capabilities and not confined.writable_mounts(process.pid)


def _weights() -> Finding:
    """Whether each file that is fetched is pinned."""
    catalogue = zoo.load()
    sums = [wheel.sha256 for wheel in catalogue.wheels.values()]
    for model in catalogue.models:
        files: tuple[Member | Remote, ...] = (*model.members, *model.urls)
        sums += [file.sha256 for file in files if file.name != DICTIONARY]
    pinned = sum(len(text) == 64 for text in sums)
    figure = f"{pinned} of {len(sums)} wheels and weights of the zoo pinned by SHA-256 (Python packages by range alone)"
    return Finding(figure, pinned == len(sums))


def _audited() -> Finding:
    """What pip-audit knows of the packages that the services need."""
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "pip-audit"]
        if subprocess.run(install, capture_output=True).returncode:
            return Finding("pip-audit cannot be installed here", None)
        if "CVE-2018-18074" not in _audit(folder, [_KNOWN_FAULTY]).stdout:
            return Finding("pip-audit reaches no database of vulnerabilities here, so packages are not judged", None)
        names = sorted(_needed("ocr-serving") - {"ocr-serving"})
        done = _audit(folder, [f"{name}=={metadata.version(name)}" for name in names])
    found = "nothing known" if not done.returncode else done.stdout.strip().replace("\n", " / ").replace("|", "")
    return Finding(f"pip-audit of {len(names)} packages: {found}", not done.returncode)


def _audit(folder: str, requirements: list[str]) -> subprocess.CompletedProcess[str]:
    listed = Path(folder) / "requirements.txt"
    listed.write_text("\n".join(requirements), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(listed),
        "--no-deps",
        "--disable-pip",
        "--aliases",
    ]
    environ = {**os.environ, "PYTHONPATH": folder}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)


def _needed(name: str, found: set[str] | None = None) -> set[str]:
    """A package and all that it needs, without extras."""
    found = set() if found is None else found
    if name not in found:
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                _needed(requirement.name.lower(), found)
    return found


SCENARIOS = (Scenario("S9", "both servers as nobody on read-only file systems; hashes of the zoo; pip-audit", s9),)
