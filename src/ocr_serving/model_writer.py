"""Writing a serving model folder: the counterpart of model_dir."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import text_format

from ocr_serving import model_dir
from ocr_serving.model_dir import INPUT, ORIGINAL_OUTPUT, Variable
from ocr_serving.wire.general_model_config_pb2 import GeneralModelConfig


class _Entry(str):
    """A dictionary entry: written in double quotes, the one YAML style that keeps every character."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """SafeDumper with _Entry."""


_Dumper.add_representer(
    _Entry, lambda dumper, entry: dumper.represent_scalar("tag:yaml.org,2002:str", str(entry), style='"')
)


def variables(shape: Sequence[int]) -> tuple[tuple[Variable, ...], tuple[Variable, ...]]:
    """The (feeds, fetches) of an OCR model: one image and the original's output.

    Args:
        shape: of the image, channels, height and width.
    """
    feeds = (Variable(INPUT, INPUT, model_dir.FLOAT32, tuple(shape)),)
    return feeds, (Variable(ORIGINAL_OUTPUT, ORIGINAL_OUTPUT, model_dir.FLOAT32, ()),)


def conf(feeds: Sequence[Variable], fetches: Sequence[Variable]) -> GeneralModelConfig:
    """The message that the prototxt files of a model hold."""
    message = GeneralModelConfig()
    for feed in feeds:
        message.feed_var.add(
            name=feed.name,
            alias_name=feed.alias,
            is_lod_tensor=feed.is_lod,
            feed_type=feed.elem_type,
            shape=feed.shape,
        )
    for fetch in fetches:
        message.fetch_var.add(
            name=fetch.name,
            alias_name=fetch.alias,
            is_lod_tensor=fetch.is_lod,
            fetch_type=fetch.elem_type,
            shape=fetch.shape,
        )
    return message


def write_conf(path: Path, feeds: Sequence[Variable], fetches: Sequence[Variable]) -> None:
    """Write serving_{server,client}_conf.prototxt and next to it its binary twin, *.stream.prototxt."""
    message = conf(feeds, fetches)
    path.write_text(text_format.MessageToString(message), encoding="utf-8")
    path.with_suffix(".stream.prototxt").write_bytes(message.SerializeToString())


def write_paddlex_conf(
    folder: Path,
    model_name: str,
    transform_ops: Sequence[Mapping[str, Any]],
    postprocess: Mapping[str, Any],
    characters: Sequence[str] = (),
) -> None:
    """Write inference.yml.

    Args:
        folder: the model folder.
        model_name: the model's name at its publisher.
        transform_ops: pre-processing ops, one key each.
        postprocess: the post-processing op's name and options.
        characters: the dictionary of a CTC model, without blank and final space.
    """
    # Null is how PaddleX writes an op without options.
    ops = [{name: dict(options) or None for name, options in op.items()} for op in transform_ops]
    dictionary = {"character_dict": [_Entry(entry) for entry in characters]} if characters else {}
    config = {
        "Global": {"model_name": model_name},
        "PreProcess": {"transform_ops": ops},
        "PostProcess": {**postprocess, **dictionary},
    }
    text = yaml.dump(config, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
    (folder / model_dir.PADDLEX_CONF).write_text(text, encoding="utf-8")
