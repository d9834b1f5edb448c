"""The commands of README.md, run as they stand there, but for the port."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import server_process
from server_process import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_every_http_form_of_the_chained_server(models, tmp_path):
    port = server_process.free_port()
    [script] = [block for block in BLOCKS if block.startswith("S=http://127.0.0.1:9293")]
    script = script.replace("9293", str(port)).replace("> response.pb", "| tee response.pb")
    (tmp_path / "imgs").symlink_to(ROOT / "imgs")
    serve = ["-m", "paddle_serving_server.serve", "--model", "ocr_det_model", "ocr_rec_model", "--port", str(port)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with server_process.running(serve, port, models):
        environ = {**os.environ, "PATH": path}
        done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environ, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("东湖公园".encode()) == 5
