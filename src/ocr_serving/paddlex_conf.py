"""inference.yml, in which PaddleX says how a model's input is prepared and its output read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml
from msgspec import Meta, Struct

from ocr_serving.errors import ConfigError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a dictionary of 18,708 entries: 0.1 s in C, 1 s in Python
_Options = TypeVar("_Options")

_Positive = Annotated[float, Meta(gt=0, lt=1e9)]
_Finite = Annotated[float, Meta(gt=-1e9, lt=1e9)]


class NormalizeImage(Struct):
    """(pixel * scale - mean) / std, per channel in BGR order; the defaults are PaddleX's.

    Attributes:
        scale: a number, or the expression "1./255.", which is the only one there is; it is never evaluated.
    """

    scale: _Positive | str = 1 / 255
    mean: tuple[_Finite, _Finite, _Finite] = (0.485, 0.456, 0.406)
    std: tuple[_Positive, _Positive, _Positive] = (0.229, 0.224, 0.225)


class RecResizeImg(Struct):
    """How a rec model's lines are resized.

    Attributes:
        image_shape: channels, height and width in pixels.
    """

    image_shape: tuple[int, Annotated[int, Meta(ge=1)], int]


class _PreProcess(Struct):
    transform_ops: list[dict[Any, Any] | str | None] | None = None


class _PostProcess(Struct):
    name: str | None = None
    character_dict: list[Any] | None = None


class _File(Struct):
    PreProcess: _PreProcess | None = None
    PostProcess: _PostProcess | None = None


@dataclass(frozen=True)
class PaddlexConf:
    """What the file says, as far as it is read here.

    Attributes:
        normalize: how pixels are; None where it does not say.
        rec_resize: how lines are; None for models that are not rec's.
        post_process: for example "DBPostProcess"; "" where it does not say.
        dictionary: the characters of a rec model without blank and space; an entry may be several characters.
    """

    normalize: NormalizeImage | None = None
    rec_resize: RecResizeImg | None = None
    post_process: str = ""
    dictionary: tuple[str, ...] = ()


def read(path: Path) -> PaddlexConf:
    """The file; an empty one where there is none: a model that is only served, not used by the pipeline.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        content = _LOADER(path.read_text(encoding="utf-8")).get_single_data()
        return _parse(msgspec.convert(content, _File))
    except FileNotFoundError:
        return PaddlexConf()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged: it is not valid YAML.") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path} is damaged: {error}.") from error


def _parse(file: _File) -> PaddlexConf:
    ops: dict[Any, Any] = {}
    for op in (file.PreProcess or _PreProcess()).transform_ops or ():
        for name, options in (op if isinstance(op, dict) else {op: None}).items():
            ops.setdefault(name, options or {})
    post = file.PostProcess or _PostProcess()
    return PaddlexConf(
        normalize=_options(ops, NormalizeImage),
        rec_resize=_options(ops, RecResizeImg),
        post_process=post.name or "",
        dictionary=tuple(map(str, post.character_dict or ())),  # YAML reads 1 and true as what they look like
    )


def _options(ops: Mapping[Any, Any], options: type[_Options]) -> _Options | None:
    """Those of the op that is called like the type."""
    return msgspec.convert(ops[options.__name__], options) if options.__name__ in ops else None
