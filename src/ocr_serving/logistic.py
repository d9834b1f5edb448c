"""Probabilities <-> logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def logit(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of the sigmoid, finite for 0 and 1 too."""
    clipped = np.clip(probability, np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg)
    return np.log(clipped) - np.log1p(-clipped)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), written so that nothing overflows."""
    half = np.float32(0.5)
    probability: NDArray[np.float32] = half + half * np.tanh(half * logits)
    return probability
