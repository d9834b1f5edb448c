"""OCRReader: crops -> the rec model's input, its output -> texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving import model_dir
from ocr_serving.compat.feeds import BadCall
from ocr_serving.compat.outputs import Outputs
from ocr_serving.engine.base import ctc_best, normalize
from ocr_serving.errors import BadInput, ConfigError
from ocr_serving.geometry import Image
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE, ORIGINAL_OUTPUT, REC_NORMALIZATION
from ocr_serving.recognition import ctc_decode, natural_width

DEFAULT_MODEL = "ocr_rec_model"
"""Where the original's examples keep the rec model, relative to the working directory."""
DEFAULT_DICTIONARY = "./ppocr_keys_v1.txt"
_DEFAULT_SHAPE = (3, 32, 320)
_ENGLISH = "0123456789abcdefghijklmnopqrstuvwxyz"


class OCRReader:
    """Prepares crops for a CTC rec model and decodes what it answers.

    Without arguments, which is how the original's examples call it, the input height and the characters are those of
    the model in ocr_rec_model/; a folder without them (made for 0.9) goes with ppocr_keys_v1.txt, as it did then. Where
    another model answered, its own dictionary is taken, as a WebService knows it, or ppocr_keys_v1.txt, if that fits.
    """

    def __init__(
        self,
        algorithm: str = "CRNN",
        image_shape: Sequence[int] | None = None,
        char_type: str = "ch",
        batch_num: int = 1,
        char_dict_path: str = DEFAULT_DICTIONARY,
    ) -> None:
        """
        Args:
            algorithm: has no effect, as in the original.
            image_shape: channels, height and width of the model's input; None takes the model's height.
            char_type: "ch" makes inputs as wide as the widest crop, other types inputs of image_shape's width; "en"
                reads digits and lower-case letters, other types what the dictionary holds.
            batch_num: has no effect, as in the original.
            char_dict_path: a dictionary, one entry a line.

        Raises:
            ConfigError: there is no dictionary.
        """
        height, characters = _model_in_working_directory()
        self.rec_image_shape = list(image_shape or (3, height, _DEFAULT_SHAPE[2]))
        self.character_type = char_type
        self._is_named = char_type == "en" or char_dict_path != DEFAULT_DICTIONARY
        if char_type == "en":
            self._dictionaries = [("", *_ENGLISH)]
        elif self._is_named:
            self._dictionaries = [_read_dictionary(Path(char_dict_path))]
        else:
            self._dictionaries = _unnamed_dictionaries(characters)

    def resize_norm_img(self, img: Image, max_wh_ratio: float) -> NDArray[np.float32]:
        """A crop, uint8 (h, w, 3), as the model's input, float32 (3, H, W), normalised, with zeros at its right.

        The original computed W for a height of 32 whatever the model's was.

        Args:
            img: the crop.
            max_wh_ratio: the largest width / height among the crops of the batch.
        """
        channels, height, width = self.rec_image_shape
        if self.character_type == "ch":
            width = max(1, int(height * max_wh_ratio))
        used = min(width, natural_width(img.shape[1], img.shape[0], height))
        line = cv2.resize(img, (used, height), interpolation=cv2.INTER_LINEAR)
        padded = np.zeros((channels, height, width), np.float32)
        padded[:, :, :used] = normalize(line[None], REC_NORMALIZATION)[0]
        return padded

    def preprocess(self, img_list: Sequence[Image]) -> NDArray[np.float32]:
        """The first crop as the model's input: see resize_norm_img. Of the others only the width counts, which is how
        the original had it; clients of its first models pass one crop.

        Args:
            img_list: crops, at least one.

        Raises:
            BadCall: there is none.
        """
        if not len(img_list):
            raise BadCall("preprocess takes a list of at least one image.")
        return self.resize_norm_img(img_list[0], max(img.shape[1] / img.shape[0] for img in img_list))

    def postprocess(self, outputs: Mapping[str, Any], with_score: bool = False) -> NoReturn:
        """Refuse: it was for the original's first models, whose graph held the CTC decoder.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("Rec models with a CTC decoder of their own are not served here; call postprocess_ocrv2.")

    def postprocess_ocrv2(self, outputs: Mapping[str, Any], with_score: bool = False) -> list[tuple[str, float]]:
        """The (text, score) of each crop, with or without `with_score`, as the original; a score without text is 0.

        Args:
            outputs: what predict() returned: save_infer_model/scale_0.tmp_1 -> probabilities, float32 (n, t, classes);
                or what WebService.postprocess got.

        Raises:
            BadInput: the output is missing, or the model has other classes than the dictionary.
        """
        if isinstance(outputs, Outputs):
            index, score = outputs.compact[CTC_INDEX], outputs.compact[CTC_SCORE]
            characters = self._fitting(len(outputs.characters), outputs.characters)
        else:
            probabilities = np.asarray(outputs.get(ORIGINAL_OUTPUT, ()), np.float32)
            if probabilities.ndim != 3:
                raise BadInput(f"postprocess_ocrv2 takes outputs with {ORIGINAL_OUTPUT} of shape (n, t, classes).")
            if not len(probabilities):
                return []  # a page without text, of which a WebService knows no classes
            index, score = ctc_best(probabilities)
            characters = self._fitting(probabilities.shape[2])
        lines = (ctc_decode(i, s, characters) for i, s in zip(index, score, strict=True))
        return [(line.text, line.score) for line in lines]

    def _fitting(self, classes: int, served: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The dictionary of a model with so many classes; `served` is its own, if known. One that was named counts.

        Raises:
            BadInput: none fits.
        """
        if self._is_named:
            known, spare = self._dictionaries, math.inf
        else:
            known, spare = [served, *self._dictionaries], 1  # some models are trained without the space at the end
        for characters in known:
            if 0 <= len(characters) - classes <= spare:
                return characters
        raise BadInput(
            f"The rec model has {classes} classes and the dictionary {len(self._dictionaries[0])}: they do not belong "
            "together. Name the model's own: OCRReader(char_dict_path=FILE)."
        )


def _model_in_working_directory() -> tuple[int, tuple[str, ...]]:
    """Input height and characters of the model in ocr_rec_model/; (32, ()) where there is none, or none that tells."""
    if not Path(DEFAULT_MODEL).is_dir():
        return _DEFAULT_SHAPE[1], ()
    model = model_dir.load(DEFAULT_MODEL)
    return model.image_height or _DEFAULT_SHAPE[1], model.characters


def _unnamed_dictionaries(characters: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Those characters, if there are any, and what ppocr_keys_v1.txt holds, if it is there."""
    dictionaries = [characters] if characters else []
    with suppress(ConfigError):
        dictionaries.append(_read_dictionary(Path(DEFAULT_DICTIONARY)))
    if not dictionaries:
        raise ConfigError(
            f"There is no dictionary to read texts with: neither the folder {DEFAULT_MODEL} (get it with: python3 -m "
            "paddle_serving_app.package --get_model ocr_rec && tar -xzf ocr_rec.tar.gz) nor the file "
            f"{DEFAULT_DICTIONARY}."
        )
    return dictionaries


def _read_dictionary(path: Path) -> tuple[str, ...]:
    """Index -> text: blank first, then the lines, a space last. The original split lines of several characters."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The dictionary {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The dictionary {path} is no text in UTF-8.") from error
    return ("", *(line.rstrip("\r") for line in text.removesuffix("\n").split("\n")), " ")
