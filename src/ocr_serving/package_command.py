"""The package command: named models, packed as the original's archives are."""

from __future__ import annotations

import argparse
import gzip
import logging
import os
import sys
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ocr_serving import settings, zoo
from ocr_serving.errors import ConfigError, OcrServingError

_MTIME = 315532800
"""1980-01-01, the oldest time a zip file knows: the same model always gives the same archive."""
_GZIP_LEVEL = 1
"""Level 9 takes twice as long for 1 % less."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 2 where the message on stderr says what was wrong."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        catalogue = zoo.load()
        if args.list_model:
            print("-" * 60)
            print(f"OCR: {' | '.join(catalogue.names)}")
        elif args.tutorial:
            model = catalogue.find(args.tutorial)
            print(f"{args.tutorial} is {model.title} ({model.licence}); README.md says how to serve it and to call it.")
        else:
            archive = get_model(args.get_model, Path.cwd(), zoo.cache_dir(settings.load().models_dir))
            print(f"{archive.name} is here; unpack it with: tar -xzvf {archive.name}")
    except OcrServingError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def get_model(name: str, folder: Path, cache: Path) -> Path:
    """Write NAME.tar.gz, which unpacks to NAME_model/ and NAME_client/, into a folder; returns its path.

    Raises:
        ConfigError: see zoo.fetch(); or the archive cannot be written.
    """
    model = zoo.fetch(name, cache, zoo.load())
    archive = folder / f"{name}.tar.gz"
    unfinished = folder / f".{archive.name}.{os.getpid()}"
    try:
        with (
            unfinished.open("wb") as raw,
            gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            tar.add(model, f"{name}_model", filter=_anonymous)
            tar.add(zoo.client_dir(model), f"{name}_client", filter=_anonymous)
        return unfinished.replace(archive)
    except OSError as error:
        raise ConfigError(f"{archive.name} cannot be written here: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The entry without what differs from machine to machine: owner, time, permissions."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = _MTIME
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m paddle_serving_app.package", description="Fetch a named model.")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--get_model", metavar="NAME", help="write NAME.tar.gz here")
    choice.add_argument("--list_model", action="store_true", help="print the names")
    choice.add_argument("--tutorial", metavar="NAME", help="say where a model's tutorial is")
    return parser
