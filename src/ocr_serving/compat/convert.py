"""Inference models -> serving folders: `python3 -m paddle_serving_client.convert`."""

from __future__ import annotations

import fnmatch
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf import text_format

from ocr_serving import model_dir, model_writer
from ocr_serving.compat import graph_variables
from ocr_serving.errors import ConfigError
from ocr_serving.model_dir import Variable


def inference_model_to_serving(
    dirname: str,
    serving_server: str = "serving_server",
    serving_client: str = "serving_client",
    model_filename: str | None = None,
    params_filename: str | None = None,
    *,
    show_proto: bool = False,
    feed_alias_names: str | None = None,
    fetch_alias_names: str | None = None,
) -> tuple[list[str], list[str]]:
    """Write the server's and the client's folder of an inference model.

    inference.yml is taken along where the model has one: then the folder is complete, and a CTC model is served with
    its compact outputs, too.

    Args:
        dirname: the model's folder: *.onnx, or *.pdmodel, inference.json (PIR) or __model__ with its parameters.
        serving_server: folder for the model and its server configuration.
        serving_client: folder for its client configuration.
        model_filename, params_filename: which files of the folder; None takes those that are there.
        show_proto: print the configuration and write nothing.
        feed_alias_names, fetch_alias_names: aliases, separated by commas, of the inputs in the model's order and of the
            outputs in alphabetical order; None takes the variables' names.

    Returns:
        Names of the inputs and of the outputs.

    Raises:
        ConfigError: no such model, a damaged one, another number of aliases than the model has variables, or a folder
            that holds another model already.
    """
    model = _file(Path(dirname), model_filename, model_dir.GRAPHS)
    params = None if model.suffix == ".onnx" else _file(Path(dirname), params_filename, model_dir.PARAMS)
    names = _served_names(model, params)
    feeds, fetches = graph_variables.read(model, params)
    feeds = _with_aliases(feeds, feed_alias_names)
    fetches = _with_aliases(sorted(fetches, key=lambda variable: variable.name), fetch_alias_names)
    if show_proto:
        sys.stdout.write(text_format.MessageToString(model_writer.conf(feeds, fetches)))
    else:
        _write_server(Path(serving_server), [model, *([params] if params else [])], names, feeds, fetches)
        client = Path(serving_client)
        client.mkdir(parents=True, exist_ok=True)
        model_writer.write_conf(client / model_dir.CLIENT_CONF, feeds, fetches)
    return [variable.name for variable in feeds], [variable.name for variable in fetches]


def _file(folder: Path, name: str | None, patterns: Sequence[str]) -> Path:
    """The file of that name, or the first that fits a pattern."""
    found = [folder / name] if name else model_dir.files_like(folder, patterns)
    if not found or not found[0].is_file():
        raise ConfigError(f"{folder} holds no {name or ' or '.join(patterns)}.")
    return found[0]


def _served_names(model: Path, params: Path | None) -> list[str]:
    """What the files are called in the server's folder: as they were, or as in the original if they end otherwise."""
    if params is None:
        return [model.name]
    if model.suffix == ".json":
        return ["inference.json", "inference.pdiparams"]
    return [
        model.name if model.suffix == ".pdmodel" else "model.pdmodel",
        params.name if params.suffix == ".pdiparams" else "params.pdiparams",
    ]


def _with_aliases(variables: Sequence[Variable], aliases: str | None) -> list[Variable]:
    if aliases is None:
        return list(variables)
    split = aliases.split(",")
    if len(split) != len(variables):
        raise ConfigError(
            "please check the input --feed_alias_names and --fetch_alias_names: "
            f"{len(split)} are given for {len(variables)} variables ({', '.join(v.name for v in variables)})."
        )
    return [replace(variable, alias=alias.strip()) for variable, alias in zip(variables, split, strict=True)]


def _write_server(
    folder: Path, files: Sequence[Path], names: Sequence[str], feeds: Sequence[Variable], fetches: Sequence[Variable]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_another_model(folder, names)
    conf = files[0].parent / model_dir.PADDLEX_CONF
    for source, name in [*zip(files, names, strict=True), *([(conf, conf.name)] if conf.is_file() else [])]:
        target = folder / name
        if not (target.exists() and target.samefile(source)):
            shutil.copyfile(source, target)
    model_writer.write_conf(folder / model_dir.SERVER_CONF, feeds, fetches)
    model_dir.load(folder)


def _refuse_another_model(folder: Path, names: Sequence[str]) -> None:
    """Raise ConfigError if a file in the folder would be taken for the model, or its parameters, in place of ours."""
    there = {*names, *(path.name for path in folder.iterdir())}
    for name, patterns in zip(names, (model_dir.GRAPHS, model_dir.PARAMS), strict=False):
        first = next(file for pattern in patterns for file in sorted(fnmatch.filter(there, pattern)))
        if first != name:
            raise ConfigError(f"{folder} holds another model already, {first}; take an empty folder.")
