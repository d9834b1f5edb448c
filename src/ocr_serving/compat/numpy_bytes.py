"""np.fromstring for bytes, which files written for Paddle Serving 0.9 call and newer numpy lacks."""

from __future__ import annotations

from typing import Any

import numpy as np


def restore_fromstring() -> None:
    """Let np.fromstring read bytes again, where numpy (from 2.3 on) refuses to.

    Every OCR example of 0.9 decodes its images with np.fromstring(data, np.uint8), in the user's own file, which must
    run unchanged. What numpy itself still does with it is left alone.
    """
    if np.lib.NumpyVersion(np.__version__) < "2.3.0" or np.fromstring is _fromstring:
        return
    np.fromstring = _fromstring  # type: ignore[assignment]


def _fromstring(string: Any, dtype: Any = float, count: int = -1, *, sep: str = "", **others: Any) -> Any:
    if sep:
        return _NUMPYS(string, dtype, count, sep=sep, **others)
    return np.frombuffer(string, dtype, count).copy()


_NUMPYS: Any = np.fromstring
