"""Image sets: folders of images, labelled or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr_serving.web_client import image_files

ROOT = Path(__file__).resolve().parents[2]
"""Of the checkout."""


@dataclass(frozen=True)
class LabelledImage:
    """An image file and the texts of its lines; None where there is no label."""

    file: Path
    truth: tuple[str, ...] | None


@dataclass(frozen=True)
class ImageSet:
    """The images of one folder; `name` is the folder's."""

    name: str
    images: tuple[LabelledImage, ...]


def load(folders: Sequence[Path], limit: int | None) -> list[ImageSet]:
    """Read the sets.

    A labels.jsonl in the folder names its images, one object a line: {"image": "a.jpg", "lines": [{"text": "..."}]}.
    A folder without one gives its image files, unlabelled.

    Args:
        folders: one set each.
        limit: most images taken of a set.

    Raises:
        ConfigError: a folder does not exist or holds no image.
    """
    return [ImageSet(folder.resolve().name, tuple(_images(folder)[:limit])) for folder in folders]


def _images(folder: Path) -> list[LabelledImage]:
    labels = folder / "labels.jsonl"
    if not labels.is_file():
        return [LabelledImage(file, None) for file in image_files([folder])]
    rows = [json.loads(line) for line in labels.read_text(encoding="utf-8").splitlines()]
    return [LabelledImage(folder / row["image"], _texts(row)) for row in rows]


def _texts(row: dict[str, list[dict[str, str]]]) -> tuple[str, ...] | None:
    return tuple(line["text"] for line in row["lines"]) if "lines" in row else None
