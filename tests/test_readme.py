"""The commands of README.md and docs/operations.md, run as they stand there, but for ports."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import server_process
import zoo_models
from server_process import ROOT

from ocr_serving import model_dir


def blocks(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_every_http_form_of_the_chained_server(models, tmp_path):
    port = server_process.free_port()
    [script] = [block for block in blocks("README.md") if block.startswith("S=http://127.0.0.1:9293")]
    script = script.replace("9293", str(port)).replace("> response.pb", "| tee response.pb")
    (tmp_path / "imgs").symlink_to(ROOT / "imgs")
    serve = ["-m", "paddle_serving_server.serve", "--model", "ocr_det_model", "ocr_rec_model", "--port", str(port)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with server_process.running(serve, port, models):
        environ = {**os.environ, "PATH": path}
        done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environ, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("东湖公园".encode()) == 5


@pytest.mark.parametrize("name", ["ppocrv4_mobile_det", "ppocrv4_mobile_rec"])
def test_a_model_of_ones_own_gets_its_inference_yml(name, tmp_path):
    genuine = model_dir.load(zoo_models.folder(name))
    (tmp_path / "ppocr_keys_v1.txt").write_text("\n".join(genuine.characters[1:-1]) + "\n", encoding="utf-8")
    folder = tmp_path / "my_rec_model"
    shutil.copytree(genuine.path, folder, ignore=shutil.ignore_patterns("inference.yml"))
    [det] = [block for block in blocks("docs/operations.md") if "DBPostProcess" in block]
    [rec] = [block for block in blocks("docs/operations.md") if "CTCLabelDecode" in block]
    if name.endswith("det"):
        (folder / "inference.yml").write_text(det, encoding="utf-8")
    else:
        subprocess.run(["bash", "-ec", rec], cwd=tmp_path, check=True, timeout=60)
    made = model_dir.load(folder)
    for what in ("characters", "image_height", "normalization", "derived"):
        assert getattr(made, what) == getattr(genuine, what)
