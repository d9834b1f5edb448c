"""Freed memory is used again, and little is needed later; in processes of their own, as what is set stays."""

import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import numpy as np
from ocr_serving import allocator

if sys.argv[1] == "keep":
    allocator.keep_freed()
for _ in range(5):  # a photo of 1280 x 720, as a file, decoded and turned
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffers = [np.ones(2_700_000, np.uint8) for _ in range(3)]
    del buffers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(mode: str, **environment: str) -> int:
    """That the fifth photo takes."""
    command = [sys.executable, "-c", PAGES, mode]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    return int(told.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_photo_takes_no_new_pages_where_one_was_before():
    assert new_pages("keep") < 100
    assert new_pages("default") > 1000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_the_environment_says_stays():
    assert new_pages("keep", MALLOC_TRIM_THRESHOLD_="0") > 1000


LITTLE_LEFT = """
import resource
import numpy as np
from ocr_serving import allocator, geometry

allocator.reserve_for_products()
pages = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (pages * 1024 + 2**23, resource.RLIM_INFINITY))
box = np.array([[0, 0], [90, 2], [90, 12], [0, 10]], np.float32)
assert len(geometry.reading_order(np.stack([box + 20 * i for i in range(9)]))) == 9
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="memory is limited otherwise")
def test_a_page_is_put_in_order_where_little_memory_is_left():
    subprocess.run([sys.executable, "-c", LITTLE_LEFT], check=True)
