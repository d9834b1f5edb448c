"""Det and rec chained in one server, Paddle Serving's "C++ OCR service": an image file in, the text lines out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ocr_serving import base64_text, image
from ocr_serving.deadline import Deadline
from ocr_serving.detection import Detector
from ocr_serving.errors import BadInput, TooLarge
from ocr_serving.image_files import image_header
from ocr_serving.model_dir import (
    CTC_INDEX,
    CTC_SCORE,
    FLOAT32,
    PAGE_BOXES,
    PAGE_SCORES,
    PAGE_TEXTS,
    ModelDir,
    Variable,
)
from ocr_serving.pipeline import Page, Pipeline
from ocr_serving.predictor.base import Array, Arrays, Predictor
from ocr_serving.recognition import BLANK, Recognizer
from ocr_serving.settings import Settings
from ocr_serving.wire.frame import MAX_BODY
from ocr_serving.wire.tensor import STRING

_HEADROOM = 1024 * 1024
"""Bytes of an answer that are no probabilities."""


class ChainedPredictor(Predictor):
    """An image file -> its text lines, in reading order. See predictor.base.Predictor.

    The input, under the det model's alias, is the file itself (uint8) or its base64 (a string, which servers unpack
    into uint8). Outputs, each with a row for each line of the page:
        the rec model's alias, the default: float32 (n, t, classes). Only what CTC decoding reads is in it: the best
            class of each step with its probability, all other classes 0, steps that add nothing left out.
        ctc_index, ctc_score: int32 and float32 (n, t), as of the rec model; shorter lines end in blanks.
        res: str (n,), the texts. dt_boxes: float32 (n, 4, 2), as in Page. scores: float32 (n,), rec scores.

    Attributes:
        feeds, fetches: input and outputs, as a served model's.
    """

    def __init__(
        self, det: Predictor, det_model: ModelDir, rec: Predictor, rec_model: ModelDir, settings: Settings
    ) -> None:
        """
        Args:
            det, rec: run the models; they stay their owner's to close.
            det_model, rec_model: the models' folders.
            settings: those of the pipeline are used, as in the web services.

        Raises:
            ConfigError: they are no det and rec model.
        """
        det_model.require_det()
        height = rec_model.require_rec()
        self._max_pixels = settings.max_pixels
        self._recognizer = Recognizer(rec, rec_model.characters, height, settings)
        self._pipeline = Pipeline(Detector(det, settings), self._recognizer, settings.rec_min_score)
        feed = det_model.feeds[0]
        self.feeds = (Variable(feed.name, feed.alias, STRING, (1,)),)
        self.fetches = (
            rec_model.graph_fetches[0],
            *(variable for variable in rec_model.fetches if variable.alias in (CTC_INDEX, CTC_SCORE)),
            Variable(PAGE_TEXTS, PAGE_TEXTS, STRING, ()),
            Variable(PAGE_BOXES, PAGE_BOXES, FLOAT32, (4, 2)),
            Variable(PAGE_SCORES, PAGE_SCORES, FLOAT32, ()),
        )
        self._makers: Mapping[str, Callable[[Page], Array]] = {
            self.fetches[0].alias: partial(_probabilities, len(rec_model.characters)),
            CTC_INDEX: lambda page: _padded([line.index for line in page.lines], BLANK, np.int32),
            CTC_SCORE: lambda page: _padded([line.probability for line in page.lines], 1, np.float32),
            PAGE_TEXTS: lambda page: np.array(page.texts, np.str_),
            PAGE_BOXES: lambda page: page.quads,
            PAGE_SCORES: lambda page: page.scores,
        }

    def predict(self, feed: Mapping[str, Array], fetch: Sequence[str] = (), deadline: Deadline | None = None) -> Arrays:
        """See predictor.base.Predictor.predict."""
        names = list(fetch) or [self.fetches[0].alias]
        if not self._makers.keys() >= set(names):
            raise BadInput(f"Unknown fetch; det and rec chained have: {', '.join(self._makers)}.")
        alias = self.feeds[0].alias
        if feed.keys() != {alias}:
            raise BadInput(f"Det and rec chained take exactly this input: {alias}.")
        page = self._pipeline.run(image.decode(_image_file(feed[alias]), self._max_pixels), deadline)
        if page.unread:
            raise page.unread[0].error
        return {name: self._makers[name](page) for name in names}

    def close(self) -> None:
        """See predictor.base.Predictor.close."""
        self._recognizer.close()


def _probabilities(classes: int, page: Page) -> NDArray[np.float32]:
    """The rec model's output as far as CTC decoding reads it: see ChainedPredictor.

    The model computes no more than that for the texts either, and what decodes from a second run in full could differ:
    in bf16, two classes are often equally good.
    """
    kept = [decisive_steps(line.index) for line in page.lines]
    steps = max(map(len, kept), default=0)
    size = len(kept) * steps * classes * np.dtype(np.float32).itemsize
    if size > MAX_BODY - _HEADROOM:
        raise TooLarge(
            f"The probabilities of all {classes} classes for the {len(kept)} lines of this page take {size} "
            f"bytes, more than an answer may hold; fetch {CTC_INDEX} and {CTC_SCORE}, or {PAGE_TEXTS}."
        )
    # The zeros are never written, so the kernel gives them no memory; reading them costs none either.
    probabilities = np.zeros((len(kept), steps, classes), np.float32)
    for row, line, at in zip(probabilities, page.lines, kept, strict=True):
        row[np.arange(len(at)), line.index[at]] = line.probability[at]
        row[len(at) :, BLANK] = 1
    return probabilities


def decisive_steps(index: NDArray[np.integer]) -> NDArray[np.intp]:
    """The time steps that CTC decoding needs: without blanks and repeats, but a blank between two equal characters.

    Args:
        index: (t,), best class of each step.
    """
    first = np.flatnonzero(np.diff(index, prepend=-1))  # of each run of equal classes
    runs = index[first]
    needed = runs != BLANK
    needed[1:-1] |= runs[:-2] == runs[2:]
    steps: NDArray[np.intp] = first[needed]
    return steps


def _padded(rows: Sequence[Array], value: float, dtype: type[np.generic]) -> Array:
    """Rows of several lengths as one array (n, longest)."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), value, dtype)
    for out, row in zip(padded, rows, strict=True):
        out[: len(row)] = row
    return padded


def _image_file(content: Array) -> bytes:
    """The bytes of the image file that a request brings.

    Raises:
        BadInput: it is neither a file nor its base64.
    """
    if content.dtype != np.uint8:
        raise BadInput("Send one image file: its base64 as a string (elem_type 20), or its bytes as uint8.")
    data = content.tobytes()
    if image_header.size(data) is not None:
        return data
    return base64_text.decode(data.decode("latin-1"), "The input is no image file that can be read, and as text it")
