"""OpenVINO imported as this project does: it tells nobody."""

import os
import subprocess
import sys

import pytest
import zoo_models

LOAD = """
import sys
asked = []
sys.addaudithook(lambda event, _: asked.append(event) if event in ("socket.getaddrinfo", "socket.connect") else None)
from ocr_serving.compat import graph_variables
from ocr_serving.predictor.local import LocalPredictor
from ocr_serving.settings import Settings
if sys.argv[2] == "graph":
    from pathlib import Path
    graph_variables.read(Path(sys.argv[1], "inference.onnx"), None)
else:
    LocalPredictor.load(sys.argv[1], Settings(engine="openvino"))
assert "openvino" in sys.modules
print(asked)
"""


@pytest.mark.parametrize("what", ["engine", "graph"])
def test_nobody_outside_is_told_that_openvino_is_used(what, tmp_path):
    """Its import would send an event to Google Analytics, and keep an identity in HOME."""
    command = [sys.executable, "-c", LOAD, str(zoo_models.folder("ppocrv6_tiny_det")), what]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # without CI, where OpenVINO is silent
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
    assert not list(tmp_path.iterdir())
