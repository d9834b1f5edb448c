"""Fetching named models: what is verified, what happens when it fails, and two processes at once."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
import openvino
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocr_serving import model_dir, model_writer, onnx_metadata, zoo, zoo_catalog
from ocr_serving.errors import ConfigError

REAL_CACHE = zoo.cache_dir(os.environ.get("OCR_MODELS_DIR", ""))

ENTRIES = ["a", "\u3000", "\u2028", "\x85", "null", "1", "y", "~", "=", "🇩🇪", "'", '"', "\\", "- x", "#", "0x1f", "中"]
"""Dictionary entries that a careless split or a YAML reader would change."""
WEIGHTS = bytes(range(256)) * 4000


# The real models


@pytest.mark.parametrize("name", [model.name for model in zoo.load().models])
def test_a_model_of_the_zoo_is_what_zoo_toml_says(name: str) -> None:
    model = zoo.load().find(name)
    found = model_dir.load(zoo.fetch(name, REAL_CACHE, zoo.load()))
    graph = openvino.Core().read_model(found.model_file)
    assert [sorted(port.get_names()) for port in graph.inputs] == [["x"]]
    assert len(found.characters) == model.classes
    assert found.normalization is not None
    if model.kind == "rec":
        assert graph.outputs[0].get_partial_shape()[2].get_length() == len(found.characters)
        assert found.image_height == 48


def test_the_default_models_are_ppocrv6_small() -> None:
    assert [zoo.load().find(name).title for name in ("ocr_det", "ocr_rec")] == [
        "PP-OCRv6_small_det",
        "PP-OCRv6_small_rec",
    ]


def test_metadata_is_what_onnxruntime_reads() -> None:
    path = zoo.fetch("ocr_rec", REAL_CACHE, zoo.load()) / "inference.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert onnx_metadata.read(path) == session.get_modelmeta().custom_metadata_map


def test_every_source_of_the_zoo_is_checked() -> None:
    models = zoo.load()
    assert len(set(models.names)) == len(models.names)
    for model in models.models:
        assert model.wheel in models.wheels
        assert model.kind in models.kinds
        for remote in model.urls:
            assert remote.url.startswith("https://")
            assert len(remote.sha256) == 64 or remote.name == zoo_catalog.DICTIONARY


# A toy zoo: one rec model whose wheel and server are ours


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


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def toy(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The toy zoo, its wheel where pip finds it; pip reaches nothing else."""
    toy = Toy(tmp_path, server)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return toy


@pytest.fixture
def no_pip_source(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The toy zoo, its wheel where pip does not find it."""
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return toy


@pytest.fixture
def offline(no_pip_source: Toy) -> Toy:
    """The toy zoo, neither source of it answering."""
    no_pip_source.server.files = {}
    return no_pip_source


# The wheel


def test_fetched_by_pip_whatever_python_the_wheel_wants(toy: Toy) -> None:
    toy.assert_built(toy.fetch())
    assert toy.server.requests == []


def test_a_wheel_put_into_the_cache_is_used_offline(offline: Toy) -> None:
    offline.hand_over_wheel()
    offline.assert_built(offline.fetch())


def test_a_damaged_wheel_in_the_cache_is_fetched_again(toy: Toy) -> None:
    toy.hand_over_wheel(damage=b"x")
    toy.assert_built(toy.fetch())
    assert (toy.cache / toy.wheel.name).read_bytes() == toy.wheel.read_bytes()


def test_a_wheel_with_other_content_is_refused(toy: Toy) -> None:
    with zipfile.ZipFile(toy.wheel, "a") as archive:
        archive.writestr("toy/more", "x")
    toy.server.files = {}
    with pytest.raises(ConfigError, match=r"is not toy_models-1\.0-py3-none-any\.whl with sha256"):
        toy.fetch()
    assert not (toy.cache / "toy_rec_model").exists()
    assert not (toy.cache / toy.wheel.name).exists()


def test_a_member_with_other_content_is_refused(offline: Toy) -> None:
    offline.hand_over_wheel()
    model = offline.zoo.models[0]
    graph, *others = model.members
    members = (msgspec.structs.replace(graph, sha256=sha256(b"other")), *others)
    offline.zoo = msgspec.structs.replace(offline.zoo, models=(msgspec.structs.replace(model, members=members),))
    with pytest.raises(ConfigError, match=r"toy/inference\.pdmodel in toy_models"):
        offline.fetch()
    assert not (offline.cache / "toy_rec_model").exists()


def test_offline_the_error_says_which_file_to_put_where(offline: Toy) -> None:
    with pytest.raises(ConfigError) as raised:
        offline.fetch()
    assert f"put {offline.wheel.name} (1 MB) into the folder {offline.cache}" in raised.value.message
    assert "404" in raised.value.message
    assert not (offline.cache / "toy_rec_model").exists()


def test_a_python_without_pip_says_so(offline: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ConfigError, match="has no pip"):
        offline.fetch()


# The folder


def test_a_complete_folder_needs_no_source(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.fetch()
    before = (toy.cache / "toy_rec_model").stat().st_ino
    (toy.cache / toy.wheel.name).unlink()
    toy.server.files = {}
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    toy.assert_built(toy.fetch())
    assert (toy.cache / "toy_rec_model").stat().st_ino == before


@pytest.mark.parametrize(
    "damaged",
    [
        "toy_rec_model/inference.pdiparams",
        "toy_rec_model/inference.yml",
        "toy_rec_model/serving_server_conf.prototxt",
        "toy_rec_client/serving_client_conf.prototxt",
    ],
)
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_damaged_folder_is_built_again(toy: Toy, damaged: str, how: str) -> None:
    toy.fetch()
    path = toy.cache / damaged
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])
    toy.assert_built(toy.fetch())


def test_a_client_folder_of_another_version_is_built_again(toy: Toy) -> None:
    found = toy.fetch()
    client_conf = zoo.client_dir(found.path) / model_dir.CLIENT_CONF
    client_conf.write_bytes((found.path / model_dir.SERVER_CONF).read_bytes())
    toy.fetch()
    assert len(model_dir.read_conf(client_conf)[1]) == 1


def test_a_genuine_client_is_told_of_the_original_output_only(toy: Toy) -> None:
    found = toy.fetch()
    feeds, fetches = model_dir.read_conf(zoo.client_dir(found.path) / model_dir.CLIENT_CONF)
    assert [feed.alias for feed in feeds] == ["x"]
    assert [fetch.alias for fetch in fetches] == ["save_infer_model/scale_0.tmp_1"]
    assert [(fetch.alias, fetch.elem_type) for fetch in found.fetches] == [
        ("save_infer_model/scale_0.tmp_1", 1),
        ("ctc_index", 2),
        ("ctc_score", 1),
    ]


def test_a_dictionary_of_another_model_is_refused(toy: Toy) -> None:
    model = msgspec.structs.replace(toy.zoo.models[0], characters_sha256=sha256(b"other"))
    toy.zoo = msgspec.structs.replace(toy.zoo, models=(model,))
    with pytest.raises(ConfigError, match="dictionary of toy_rec"):
        toy.fetch()
    assert not (toy.cache / "toy_rec_model").exists()


def test_a_cache_that_cannot_be_written_is_one_sentence(toy: Toy) -> None:
    (toy.root / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="cannot be kept in"):
        zoo.fetch("toy_rec", toy.root / "file", toy.zoo)


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(ConfigError, match=r"not exist in current model list.*Did you mean ocr_det"):
        zoo.load().find("ocr_dett")
    with pytest.raises(ConfigError, match="ppocrv4_mobile_det"):
        zoo.load().find("resnet")


# The URLs


def test_the_urls_are_the_second_source(no_pip_source: Toy) -> None:
    no_pip_source.assert_built(no_pip_source.fetch())


def test_a_broken_download_goes_on_where_it_broke(no_pip_source: Toy) -> None:
    toy = no_pip_source
    toy.server.cut_after = 3 << 16
    with pytest.raises(ConfigError, match="did not give the file"):
        toy.fetch()
    assert not (toy.cache / "toy_rec_model").exists()
    toy.server.cut_after, toy.server.requests = None, []
    toy.assert_built(toy.fetch())
    assert toy.server.requests == [("/inference.pdiparams", f"bytes={3 << 16}-"), ("/characters.txt", None)]


def test_a_server_without_ranges_starts_over(no_pip_source: Toy) -> None:
    toy = no_pip_source
    toy.server.cut_after, toy.server.ranges = 100_000, False
    with pytest.raises(ConfigError):
        toy.fetch()
    toy.server.cut_after, toy.server.requests = None, []
    toy.assert_built(toy.fetch())
    assert [path for path, _ in toy.server.requests] == ["/inference.pdiparams", "/characters.txt"]


@pytest.mark.parametrize("size", [10, len(WEIGHTS), len(WEIGHTS) + 10])
def test_a_wrong_beginning_is_not_kept(no_pip_source: Toy, size: int) -> None:
    toy = no_pip_source
    partial = toy.cache / ".partial"
    partial.mkdir()
    (partial / sha256(WEIGHTS)).write_bytes(b"?" * size)
    toy.assert_built(toy.fetch())


def test_a_url_with_other_content_is_refused(no_pip_source: Toy) -> None:
    no_pip_source.server.files["/inference.pdiparams"] = WEIGHTS[:-1] + b"?"
    with pytest.raises(ConfigError, match="does not have the sha256"):
        no_pip_source.fetch()
    assert not (no_pip_source.cache / "toy_rec_model").exists()


def test_a_url_dictionary_without_a_checksum_is_checked_by_its_entries(no_pip_source: Toy) -> None:
    toy = no_pip_source
    model = toy.zoo.models[0]
    *weights, dictionary = model.urls
    urls = (*weights, msgspec.structs.replace(dictionary, sha256=""))
    toy.zoo = msgspec.structs.replace(toy.zoo, models=(msgspec.structs.replace(model, urls=urls),))
    toy.server.files["/characters.txt"] = "\n".join([*ENTRIES[:-1], "国"]).encode()
    with pytest.raises(ConfigError, match="dictionary of toy_rec"):
        toy.fetch()
    toy.server.files["/characters.txt"] = "\n".join(ENTRIES).encode()
    toy.assert_built(toy.fetch())


# Processes


def test_two_processes_fetch_once(no_pip_source: Toy) -> None:
    toy = no_pip_source
    toy.server.release.clear()
    with toy.spawn() as first:
        assert toy.server.asked.wait(60)
        with toy.spawn() as second:
            assert second.stderr is not None
            assert "Another process is fetching models" in second.stderr.readline()
            toy.server.release.set()
            assert (first.wait(60), second.wait(60)) == (0, 0)
    assert sorted(path for path, _ in toy.server.requests) == sorted(toy.server.files)
    toy.assert_built(toy.fetch())


def test_a_killed_process_leaves_nothing_half_done(no_pip_source: Toy) -> None:
    toy = no_pip_source
    toy.server.release.clear()
    with toy.spawn() as process:
        assert toy.server.asked.wait(60)
        process.kill()
    assert not (toy.cache / "toy_rec_model").exists()
    toy.server.release.set()
    toy.assert_built(toy.fetch())


# What is written and read


@example(ENTRIES)
@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3), min_size=1, max_size=40))
def test_every_dictionary_survives_inference_yml(entries: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inference.onnx").touch()
        feeds, fetches = model_writer.variables((3, 48, 320))
        model_writer.write_conf(folder / model_dir.SERVER_CONF, feeds, fetches)
        model_writer.write_paddlex_conf(folder, "m", [], {"name": "CTCLabelDecode"}, entries)
        found = model_dir.load(folder)
    assert found.characters == ("", *entries, " ")
    assert (found.feeds, found.graph_fetches) == (feeds, fetches)


@given(st.binary(max_size=60))
def test_metadata_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(ConfigError):
            onnx_metadata.read(Path(file.name))


def test_metadata_behind_other_fields() -> None:
    # ir_version = 7 (varint), graph (empty), metadata_props {key: "k", value: "v"}; written by hand from onnx.proto
    data = base64.b16decode("0807" + "3A00" + "7206" + "0A016B" + "120176")
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        assert onnx_metadata.read(Path(file.name)) == {"k": "v"}
