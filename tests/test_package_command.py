"""`python3 -m paddle_serving_app.package` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest import mock

import pytest

from ocr_serving import model_dir, package_command, zoo
from ocr_serving.errors import ConfigError


def run(cwd: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paddle_serving_app.package", *args]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["ocr_det", "ocr_rec", "ppocrv4_mobile_det"])
def test_get_model_then_tar_gives_a_model_folder(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, "--get_model", name)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.tar.gz"]
    subprocess.run(["tar", "-xzf", f"{name}.tar.gz"], cwd=tmp_path, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}_model", f"{name}_client", f"{name}.tar.gz"}
    found = model_dir.load(tmp_path / f"{name}_model")
    assert found.format == ("paddle" if "v4" in name else "onnx")
    assert model_dir.read_conf(tmp_path / f"{name}_client" / model_dir.CLIENT_CONF) == (
        found.feeds,
        found.graph_fetches,
    )


def test_the_archive_is_the_same_every_time(tmp_path: Path) -> None:
    archives = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        assert run(folder, "--get_model", "ocr_det").returncode == 0
        archives.append((folder / "ocr_det.tar.gz").read_bytes())
    assert archives[0] == archives[1]
    with tarfile.open(tmp_path / "a" / "ocr_det.tar.gz") as tar:
        assert {(entry.uid, entry.gid, entry.uname) for entry in tar} == {(0, 0, "")}


def test_list_model_prints_in_the_originals_style(tmp_path: Path) -> None:
    done = run(tmp_path, "--list_model")
    dashes, names = done.stdout.splitlines()
    assert set(dashes) == {"-"}
    assert names.startswith("OCR: ocr_rec | ocr_det | ")
    assert names.removeprefix("OCR: ").split(" | ") == zoo.load().names


@pytest.mark.parametrize("option", ["--get_model", "--tutorial"])
def test_an_unknown_name_is_the_originals_sentence_and_a_hint(tmp_path: Path, option: str) -> None:
    done = run(tmp_path, option, "ocr_detection")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Your model name does not exist in current model list, stay tuned")
    assert "Did you mean ocr_det" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tutorial_names_the_readme(tmp_path: Path) -> None:
    done = run(tmp_path, "--tutorial", "ocr_det")
    assert done.returncode == 0
    assert "PP-OCRv6_small_det" in done.stdout
    assert "README" in done.stdout


def test_offline_is_one_line_and_status_2(tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9"  # the discard port: nothing listens, so nothing leaves this machine
    done = run(
        tmp_path,
        "--get_model",
        "ocr_det",
        OCR_MODELS_DIR=str(tmp_path / "cache"),
        PIP_CONFIG_FILE=os.devnull,
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS="",
        HTTPS_PROXY=closed,
        https_proxy=closed,
        NO_PROXY="",
        no_proxy="",
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"put rapidocr-3.10.0-py3-none-any.whl (27 MB) into the folder {tmp_path / 'cache'}" in done.stderr
    assert not list(tmp_path.glob("*.tar.gz"))


def test_an_archive_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ocr_det.tar.gz").mkdir()
    done = run(tmp_path, "--get_model", "ocr_det")
    assert done.returncode == 2
    assert done.stderr.startswith("ocr_det.tar.gz cannot be written here")
    assert [path.name for path in tmp_path.iterdir()] == ["ocr_det.tar.gz"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"toy\.tar\.gz cannot be written here"), mock.patch.object(zoo, "fetch"):
        package_command.get_model("toy", tmp_path / "file", tmp_path)


@pytest.mark.parametrize("args", [[], ["--get_model"], ["--get_model", "ocr_det", "--list_model"]])
def test_a_wrong_command_line_is_status_2(tmp_path: Path, args: list[str]) -> None:
    done = run(tmp_path, *args)
    assert done.returncode == 2
    assert "usage" in done.stderr
