"""How large the installed product is: its package, the extra that `make serve` takes, and all that they require."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_PRODUCT = "ocr-serving"
_EXTRA = 'extra == "onnxruntime"'
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def sizes() -> dict[str, float]:
    """Distribution -> MB of its files, the largest first."""
    found: dict[str, float] = {}
    _add(_PRODUCT, found)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _add(package: str, found: dict[str, float]) -> None:
    name = re.sub(r"[-_.]+", "-", package).lower()
    if name in found:
        return
    try:
        installed = distribution(name)
    except PackageNotFoundError:  # asked for on other systems or Python versions only
        return
    found[name] = _megabytes(installed)
    for requirement in installed.requires or []:
        needed = _NAME.match(requirement)
        wanted = "extra ==" not in requirement or (name == _PRODUCT and _EXTRA in requirement.replace("'", '"'))
        if needed and wanted:
            _add(needed.group(), found)


def _megabytes(installed: Distribution) -> float:
    files = {Path(file.locate()) for file in installed.files or []}
    return round(sum(file.stat().st_size for file in files if file.is_file()) / 1e6, 1)
