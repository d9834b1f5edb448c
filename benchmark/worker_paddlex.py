"""PaddleX's OCR server as a peer, in an environment of its own: worker_paddlex.py DET_FOLDER REC_FOLDER.

Its models are PP-OCRv4 mobile, which our zoo has in Paddle's format; settings as ours.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from harness.lines import Read, serve

START_SECONDS = 180


def load(det: Path, rec: Path) -> Read:
    """Start the server and wait until it answers; a read is one request."""
    work = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, work)
    config = pipeline_config(Path(work), {"det": det, "rec": rec})
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "paddlex", "--serve", "--pipeline", str(config), "--device", "cpu"]
    environment = os.environ | {"PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"}
    server = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], env=environment)
    atexit.register(server.wait)
    atexit.register(server.terminate)
    wait_for(port, server)

    def read(data: bytes) -> list[str]:
        body = {"file": base64.b64encode(data).decode("ascii"), "fileType": 1, "visualize": False}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/ocr", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as reply:
            (page,) = json.load(reply)["result"]["ocrResults"]
        return list(page["prunedResult"]["rec_texts"])

    return read


def pipeline_config(work: Path, folders: dict[str, Path]) -> Path:
    """PaddleX's pipeline file; the model folders are copied, with the model names that PaddleX looks for."""
    import yaml

    modules = {
        "TextDetection": {
            "module_name": "text_detection", "model_name": "PP-OCRv4_mobile_det", "model_dir": str(work / "det"),
            "limit_side_len": 960, "limit_type": "max", "max_side_limit": 4000,
            "thresh": 0.3, "box_thresh": 0.5, "unclip_ratio": 1.5,
        },
        "TextRecognition": {
            "module_name": "text_recognition", "model_name": "PP-OCRv4_mobile_rec", "model_dir": str(work / "rec"),
            "batch_size": 8, "score_thresh": 0.5,
        },
    }  # fmt: skip
    for kind, folder in folders.items():
        shutil.copytree(folder, work / kind)
        conf = work / kind / "inference.yml"
        content = yaml.safe_load(conf.read_text(encoding="utf-8"))
        content["Global"] = {"model_name": f"PP-OCRv4_mobile_{kind}"}
        operations = content["PreProcess"]["transform_ops"]
        if kind == "det" and not any("ToCHWImage" in operation for operation in operations):
            operations.append({"ToCHWImage": None})
        conf.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    pipeline = {
        "pipeline_name": "OCR", "text_type": "general", "use_doc_preprocessor": False,
        "use_textline_orientation": False, "SubModules": modules,
    }  # fmt: skip
    (work / "OCR.yaml").write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    return work / "OCR.yaml"


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Return once the server is healthy.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError("PaddleX's server did not start")


if __name__ == "__main__":
    serve(lambda: load(Path(sys.argv[1]), Path(sys.argv[2])))
