"""A page for which there is no memory left is worth sending again; in a process of its own, as the limit stays."""

import platform
import subprocess
import sys

import cv2
import numpy as np
import pytest

from ocr_serving import errors, memory

LITTLE_LEFT = """
import resource
import numpy as np
from ocr_serving import errors
from ocr_serving.detection import Detector
from ocr_serving.settings import Settings

image = np.zeros((4000, 4000, 3), np.uint8)
pages = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (pages * 1024 + 2**23, resource.RLIM_INFINITY))
try:
    Detector(None, Settings()).detect(image)
except errors.Overloaded as error:
    print(error)
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="memory is limited otherwise")
def test_an_image_that_cannot_be_shrunk_for_lack_of_memory_may_come_again():
    run = subprocess.run([sys.executable, "-c", LITTLE_LEFT], capture_output=True, text=True)
    assert run.stdout == "There is no memory left for this image now; try again.\n", run.stderr


@pytest.mark.parametrize("lack", [MemoryError(), cv2.error("Failed to allocate")])
def test_numpy_and_opencv_say_it_in_their_own_ways(lack):
    if isinstance(lack, cv2.error):
        lack.code = cv2.Error.StsNoMem
    with pytest.raises(errors.Overloaded), memory.needed():
        raise lack


def test_other_faults_of_opencv_stay_faults():
    with pytest.raises(cv2.error), memory.needed():
        cv2.resize(np.empty((0, 0, 3), np.uint8), (8, 8))
