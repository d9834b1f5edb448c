"""A zoo of one small model, and the pip index and HTTP server that have it."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocr_serving import model_dir, zoo, zoo_catalog

ENTRIES = ["a", "\u3000", "\u2028", "\x85", "null", "1", "y", "~", "=", "🇩🇪", "'", '"', "\\", "- x", "#", "0x1f", "中"]
"""Dictionary entries that a careless split or a YAML reader would change."""
WEIGHTS = bytes(range(256)) * 4000


@dataclass
class Toy:
    """A zoo of one rec model, a cache, a place where pip looks, and an HTTP server with the same files."""

    root: Path
    server: Server
    zoo: zoo_catalog.Zoo = field(init=False)

    def __post_init__(self) -> None:
        for folder in ("index", "cache"):
            (self.root / folder).mkdir()
        dictionary = "\r\n".join(ENTRIES).encode() + b"\r\n"
        content = {"inference.pdmodel": b"graph", "inference.pdiparams": WEIGHTS, "characters.txt": dictionary}
        self.server.files = {f"/{name}": data for name, data in content.items()}
        self.wheel = self.root / "index" / "toy_models-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            for name, data in content.items():
                archive.writestr(f"toy/{name}", data)
            info = "toy_models-1.0.dist-info"
            metadata = "Metadata-Version: 2.1\nName: toy-models\nVersion: 1.0\nRequires-Python: <3\n"
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        model = {
            "name": "toy_rec",
            "title": "Toy_rec",
            "kind": "rec",
            "licence": "none",
            "classes": len(ENTRIES) + 2,
            "characters_sha256": sha256("\n".join(ENTRIES).encode()),
            "postprocess": {"name": "CTCLabelDecode"},
            "wheel": "toy",
            "members": [
                {"name": name, "member": f"toy/{name}", "size": len(data), "sha256": sha256(data)}
                for name, data in content.items()
            ],
            "urls": [
                {"name": name, "url": f"{self.server.url}/{name}", "sha256": sha256(data)}
                for name, data in content.items()
            ],
        }
        wheel = {
            "requirement": "toy-models==1.0",
            "file": self.wheel.name,
            "size": self.wheel.stat().st_size,
            "sha256": sha256(self.wheel.read_bytes()),
        }
        kind = {"shape": [3, 48, 320], "transform_ops": [{"RecResizeImg": {"image_shape": [3, 48, 320]}}]}
        self.file = self.root / "zoo.toml"
        content = {"wheels": {"toy": wheel}, "kinds": {"rec": kind}, "models": [model]}
        self.file.write_text("".join(f"{key} = {toml(value)}\n" for key, value in content.items()))
        self.zoo = zoo_catalog.load(self.file)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def fetch(self) -> model_dir.ModelDir:
        return model_dir.load(zoo.fetch("toy_rec", self.cache, self.zoo))

    def spawn(self) -> subprocess.Popen[str]:
        code = (
            "import logging, sys; from pathlib import Path; from ocr_serving import zoo, zoo_catalog\n"
            "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
            "zoo.fetch('toy_rec', Path(sys.argv[1]), zoo_catalog.load(Path(sys.argv[2])))"
        )
        command = [sys.executable, "-c", code, str(self.cache), str(self.file)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def hand_over_wheel(self, damage: bytes = b"") -> None:
        (self.cache / self.wheel.name).write_bytes(self.wheel.read_bytes() + damage)

    def assert_built(self, found: model_dir.ModelDir) -> None:
        assert found.characters == ("", *ENTRIES, " ")
        assert found.params_file is not None
        assert found.params_file.read_bytes() == WEIGHTS
        assert sorted(path.name for path in (self.cache / ".partial").iterdir()) == ["lock"]


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; can cut an answer short, ignore Range, and hold answers back until `release` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after: int | None = None
        self.ranges = True
        self.asked = threading.Event()
        self.release = threading.Event()
        self.release.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requests.append((self.path, wanted))
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        cut = self.server.cut_after if self.server.cut_after is not None else len(data)
        middle = max(start, len(data) // 2)
        self.wfile.write(data[start : min(middle, cut)])
        self.wfile.flush()
        self.server.asked.set()
        self.server.release.wait(60)
        with contextlib.suppress(ConnectionError):  # a killed client does not read on
            self.wfile.write(data[middle:cut])

    def log_message(self, *args: object) -> None:
        """Keep the test output quiet."""


def toml(value: Any) -> str:
    """A value as TOML writes it on one line; strings and numbers are as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
