"""Protobuf messages in text files, as Paddle Serving keeps its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from ocr_serving.errors import ConfigError

_M = TypeVar("_M", bound=Message)


def read(file: Path, message: _M, unknown_fields: bool = False) -> _M:
    """The message that a file holds.

    Args:
        file: in UTF-8.
        message: an empty one, filled and returned.
        unknown_fields: whether fields that the message does not know are passed over.

    Raises:
        ConfigError: the file is missing or is not such a file.
    """
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), message, allow_unknown_field=unknown_fields)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is damaged: {error}.") from error
