"""What a web service's postprocess gets of a rec model: the answer in short form, and in full once it is looked at."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from ocr_serving.predictor.base import Array, Arrays


class Outputs(UserDict[str, Array]):
    """A dict of the model's own outputs, which are asked of the model only when something reads or writes it.

    With 18,710 classes a line's probabilities are 11 MB, and those of a page more than a frame may hold; the best class
    and its score at each step, all that OCRReader needs, are a kilobyte.

    Attributes:
        compact: CTC_INDEX and CTC_SCORE -> array.
        characters: index -> text, as in model_dir.ModelDir: the model's own.
    """

    def __init__(self, compact: Mapping[str, Array], load: Callable[[], Arrays], characters: tuple[str, ...]) -> None:
        self.compact = compact
        self.characters = characters
        self._load = load

    @cached_property
    def data(self) -> Any:  # type: ignore[override]
        """What the dict holds."""
        return dict(self._load())
