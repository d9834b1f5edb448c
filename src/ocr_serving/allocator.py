"""The C library's memory allocator."""

from __future__ import annotations

import ctypes
import os

import numpy as np

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3), glibc's malloc.h."""
LARGEST = 32 * 2**20
"""Bytes; glibc takes no larger buffers out of freed memory unless told to."""


def keep_freed() -> None:
    """Let this process use freed memory again for buffers of up to LARGEST bytes, and keep twice as much of it.

    glibc else gives what an image took back to the system, and each new page costs a microsecond or two: 3 of a photo's
    70 ms. Once it has seen a buffer of LARGEST bytes freed, it does the same by itself. Elsewhere, and where the
    environment says how large (mallopt(3)), nothing changes.
    """
    if {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, LARGEST)
    mallopt(_M_TRIM_THRESHOLD, 2 * LARGEST)


def reserve_for_products() -> None:
    """Let numpy's products of matrices have their buffer from now on.

    OpenBLAS takes it, 32 MB of addresses, at the first product, and where they are not to be had then, as a request has
    taken the memory, it ends the process with status 1. Later products use it again.
    """
    matrix = np.ones((8, 3), np.float32)
    _ = matrix.T @ matrix
