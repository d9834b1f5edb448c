"""Rounding weights to 8 bits, for every engine that multiplies bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_WEIGHT = 127
EXACT_PAIR = 128
"""Largest sum of two neighbouring weights of one sign with which nothing is ever cut off. AVX2 adds two products of
uint8 and int8 in int16, and cuts off what does not fit (vpmaddubsw, Intel's instruction reference); 255 * 128 does."""


def weight_steps(kernel: NDArray[np.float32], pair_limit: int) -> NDArray[np.float32]:
    """The step that the weights of each output are rounded to: float32 (out,).

    With it no weight is beyond LARGEST_WEIGHT steps, and no two of the same sign that neighbour each other along the
    inputs add up to more than pair_limit.

    Args:
        kernel: float32 (out, in, ...).
        pair_limit: in steps.
    """
    outputs, inputs = kernel.shape[:2]
    weights = kernel.reshape(outputs, inputs, -1)
    if inputs % 2:
        weights = np.pad(weights, ((0, 0), (0, 1), (0, 0)))
    first, second = weights[:, ::2], weights[:, 1::2]
    above = np.maximum(first, 0) + np.maximum(second, 0)
    below = np.minimum(first, 0) + np.minimum(second, 0)
    largest = np.maximum(above, -below).max((1, 2))
    # each of two may be rounded up
    least = np.maximum(largest / (pair_limit - 1), np.abs(weights).max((1, 2)) / LARGEST_WEIGHT)
    return np.where(least > 0, least, 1).astype(np.float32)
