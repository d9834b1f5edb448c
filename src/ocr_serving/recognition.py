"""Crops -> texts: batches of equal width, the rec model, and CTC decoding.

CTC: Graves et al., Connectionist Temporal Classification, ICML 2006; decoded greedily, as the original does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_serving import memory
from ocr_serving.deadline import Deadline, remaining
from ocr_serving.errors import BadUpstream, EngineFailed, OcrServingError
from ocr_serving.geometry import Image
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE, INPUT
from ocr_serving.predictor.base import Array, Predictor
from ocr_serving.reading import leaders
from ocr_serving.reading.long_lines import join, pieces
from ocr_serving.reading.portions import CPU_BATCH_WIDTH, Batch, batches, portions
from ocr_serving.reading.tiling import Window
from ocr_serving.settings import Settings

logger = logging.getLogger(__name__)

BLANK = 0
"""Class index of the CTC blank."""
WIDTHS = (
    32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 288, 320, 368, 416, 464, 528, 592, 672, 752, 848, 960,
    1088, 1232, 1392, 1568, 1776, 2080
)  # fmt: skip
"""Input widths in pixels at a height of 48, about an eighth apart. A fixed set, because OpenVINO runs a shape that it
has not seen 40-60 % slower."""
UNSQUEEZED_WIDTH = 160
"""Lines of this width at a height of 48 keep their proportions; longer ones are squeezed, shorter ones stretched."""
LEAST_SQUEEZED = 0.65
"""No line is squeezed to less of its length than this share."""
_DENSE, _DENSE_DOUBT = 0.7, 0.99
"""Where there are more characters to a time step, rec passes over some and is sure of the others: CTC needs two steps
for a letter that comes twice. Such a line is doubtful below this score."""
PORTION_SECONDS = 0.15
"""How long a call takes that reads lines of the only image: what one that comes meanwhile may have to wait for."""
CROWDED_PORTION_SECONDS = 0.05
"""The same while several images are read."""
_MEMORY = 0.9
"""Weight of the portions before the latest in the pace: the last ten or so count."""
LONGEST_LINE = 3200
"""Widest line read in one piece, at a height of 48; its input is the widest there is. The pieces of longer ones are not
squeezed: as dense as small print is, rec passes over letters of them, and is sure of the others."""


@dataclass(frozen=True)
class Line:
    """The text of one crop.

    Attributes:
        text: "" where there is none.
        score: mean probability of the characters kept, 0 without any.
        letters: mean probability of those that are letters or digits, 0 without any.
        error: why the model could not read this crop, though it reads others.
        index: int (t,), the model's best class of each time step.
        probability: float32 (t,), of that class.
    """

    text: str
    score: float
    letters: float = field(default=0.0, compare=False)
    error: OcrServingError | None = None
    index: NDArray[np.integer] = field(default_factory=lambda: np.empty(0, np.int32), compare=False, repr=False)
    probability: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32), compare=False, repr=False)


class Recognizer:
    """Reads crops with any predictor of a CTC model. Thread-safe.

    Attributes:
        height: of the model's input, in pixels.
    """

    def __init__(self, predictor: Predictor, characters: Sequence[str], height: int, settings: Settings) -> None:
        """
        Args:
            predictor: the rec model.
            characters: class index -> text, the blank at index 0 (ModelDir.characters).
            height: the model's input height in pixels (ModelDir.image_height).
            settings: rec_batch, rec_squeeze, rec_doubt_score, device and threads are used.
        """
        self._predictor = predictor
        self._characters = characters
        self._is_text = np.array([i != BLANK and c not in leaders.CHARACTERS for i, c in enumerate(characters)])
        self._spaces = [i for i, character in enumerate(characters) if character == " " and i != BLANK][:1]
        self.height = height
        self._settings = settings
        # As many portions at once as an engine runs: with more, those that are prepared take cores from those computed.
        self._runs = settings.rec_runs
        self._workers = ThreadPoolExecutor(self._runs, thread_name_prefix="rec-portion")
        self._lock = threading.Lock()
        self._reading = 0  # images
        self._pixels, self._seconds = 0.0, 1e-6  # of the latest portions: width read, and how long it took

    @memory.needed()
    def recognize(self, crops: Sequence[Image], deadline: Deadline | None = None) -> list[Line]:
        """The text of each crop, uint8 (h, w, 3) BGR of any size, in the crops' order.

        A crop's input width depends on itself alone, so its text does not depend on its neighbours. Where the model
        fails on several crops together, it is asked for each alone: only those it fails on then have an error.

        Raises:
            The predictor's errors, but an EngineFailed or BadUpstream only if all crops have one.
            Overloaded where there is no memory.
        """
        lines = self._lines(crops, deadline)
        failed = [line.error for line in lines if line.error is not None]
        if failed and len(failed) == len(lines):
            raise failed[0]
        return self._without_leaders(lines, crops, deadline)

    def close(self) -> None:
        """Stop the threads; no call may follow."""
        self._workers.shutdown(cancel_futures=True)

    def _without_leaders(self, lines: Sequence[Line], crops: Sequence[Image], deadline: Deadline | None) -> list[Line]:
        """The lines; where text stands far apart, its parts are read alone as well, and the better reading counts."""
        apart: dict[int, list[slice]] = {}
        for i, (line, crop) in enumerate(zip(lines, crops, strict=True)):
            parts = leaders.text_parts(line.index, self._is_text, crop.shape[1], crop.shape[0])
            if len(parts) > 1:
                apart[i] = parts
        read = iter(self._lines([crops[i][:, part] for i, parts in apart.items() for part in parts], deadline))
        better = list(lines)
        for i, parts in apart.items():
            again = [next(read) for _ in parts]
            if min(line.letters for line in again) > 0:
                better[i] = max(self._in_a_row(again), better[i], key=lambda reading: reading.letters)
        return better

    def _in_a_row(self, parts: Sequence[Line]) -> Line:
        """The parts of a line as one, with a space between them."""
        space = np.array([BLANK, *self._spaces, BLANK], np.int32)
        least = np.full(len(space), min(line.score for line in parts), np.float32)
        steps = leaders.join([(line.index, line.probability) for line in parts], (space, least))
        return ctc_decode(*steps, self._characters)

    def _lines(self, crops: Sequence[Image], deadline: Deadline | None) -> list[Line]:
        """The text of each crop; crops longer than LONGEST_LINE are read in pieces."""
        squeeze = self._settings.rec_squeeze
        cuts = [pieces(crop.shape[1], crop.shape[0], LONGEST_LINE, WIDTHS[-1]) for crop in crops]
        short = [crop[:, part.start : part.stop] for crop, parts in zip(crops, cuts, strict=True) for part in parts]
        squeezes = [1.0 if len(parts) > 1 else squeeze for parts in cuts for _ in parts]
        widths = [self._width(crop, exponent) for crop, exponent in zip(short, squeezes, strict=True)]
        read = iter(self._recognize(short, widths, deadline))
        return [self._joined([next(read) for _ in parts], parts) for parts in cuts]

    def _joined(self, read: Sequence[Line], parts: Sequence[Window]) -> Line:
        """The line that was read in pieces."""
        failed = [line for line in read if line.error is not None]
        if failed or len(read) == 1:
            return (failed or read)[0]
        steps = [(line.index, line.probability) for line in read]
        width = parts[0].stop - parts[0].start
        return ctc_decode(*join(steps, parts, width / max(1, len(read[0].index))), self._characters)

    def _recognize(self, crops: Sequence[Image], widths: Sequence[int], deadline: Deadline | None) -> list[Line]:
        """The text of each crop, none of which is longer than LONGEST_LINE, read at these widths.

        No more portions are handed over than keep the workers busy, so that other images' lines get their turn.
        """
        left = portions(batches(widths, self._settings, self._runs), self._runs, self._portion_width)
        lines: list[Line] = [Line("", 0.0)] * len(crops)
        runs: dict[Future[list[Line]], list[int]] = {}
        with self._lock:
            self._reading += 1
        try:
            while True:
                for portion in islice(left, self._runs + 1 - len(runs)):
                    read = partial(self._read_well, portion, crops)
                    indices = [i for batch in portion for i in batch.indices]
                    runs[self._workers.submit(copy_context().run, read, deadline)] = indices
                if not runs:
                    return lines
                done, _ = wait(runs, remaining(deadline), FIRST_COMPLETED)
                if deadline is not None and not done:
                    deadline.check("while its lines were read")
                for run in done:
                    for i, line in zip(runs.pop(run), run.result(), strict=True):
                        lines[i] = line
        finally:
            with self._lock:
                self._reading -= 1
            for run in runs:
                run.cancel()

    def _portion_width(self) -> float:
        seconds = PORTION_SECONDS if self._reading == 1 else CROWDED_PORTION_SECONDS
        return max(CPU_BATCH_WIDTH, self._pixels / self._seconds * seconds)

    def _note_pace(self, pixels: int, seconds: float) -> None:
        with self._lock:
            self._pixels = _MEMORY * self._pixels + pixels
            self._seconds = _MEMORY * self._seconds + seconds

    def _read_well(self, portion: Sequence[Batch], crops: Sequence[Image], deadline: Deadline | None) -> list[Line]:
        """The lines of a portion; doubtful ones that were squeezed are read again as they are, the better reading kept.

        Doubt is of letters and digits: the dots of a leader are often unsure, and nobody needs them read twice. Pieces
        of a line, which must all be squeezed alike, are not squeezed at all.
        """
        begin = time.monotonic()
        lines = self._read(portion, crops, deadline)
        self._note_pace(sum(batch.pixels for batch in portion), time.monotonic() - begin)
        again: dict[int, Batch] = {}
        for at, (i, width) in enumerate((i, batch.width) for batch in portion for i in batch.indices):
            if self._is_doubtful(lines[at]) and (natural := self._width(crops[i], 1.0)) > width:
                again[at] = Batch(natural, [i])
        if again:
            for at, line in zip(again, self._read(list(again.values()), crops, deadline), strict=True):
                lines[at] = max(lines[at], line, key=lambda reading: reading.letters)
        return lines

    def _is_doubtful(self, line: Line) -> bool:
        limit = self._settings.rec_doubt_score
        if limit and len(line.text) > _DENSE * len(line.index):
            limit = max(limit, _DENSE_DOUBT)
        return 0 < line.letters < limit

    def _read(self, portion: Sequence[Batch], crops: Sequence[Image], deadline: Deadline | None) -> list[Line]:
        """The lines of a portion; alone, a crop that the model fails on is a line with an error."""
        try:
            return self._run(portion, crops, deadline)
        except (EngineFailed, BadUpstream) as error:
            single = [Batch(batch.width, [i]) for batch in portion for i in batch.indices]
            if len(single) == 1:
                return [Line("", 0.0, error=error)]
            logger.warning("A portion of %d crops failed and is read crop by crop: %s", len(single), error)
        return [line for batch in single for line in self._read([batch], crops, deadline)]

    def _width(self, crop: Image, exponent: float) -> int:
        return input_width(crop.shape[1], crop.shape[0], self.height, exponent)

    def _run(self, portion: Sequence[Batch], crops: Sequence[Image], deadline: Deadline | None) -> list[Line]:
        feeds = [{INPUT: self._input([crops[i] for i in batch.indices], batch.width)} for batch in portion]
        answers = self._predictor.predict_each(feeds, [CTC_INDEX, CTC_SCORE], deadline)
        return [
            line
            for batch, answer in zip(portion, answers, strict=True)
            for line in self._decode(answer[CTC_INDEX], answer[CTC_SCORE], len(batch.indices))
        ]

    def _input(self, crops: Sequence[Image], width: int) -> NDArray[np.uint8]:
        batch = np.empty((len(crops), self.height, width, 3), np.uint8)
        for row, image in zip(batch, crops, strict=True):
            cv2.resize(image, (width, self.height), row, interpolation=cv2.INTER_LINEAR)
        return batch

    def _decode(self, index: Array, score: Array, size: int) -> list[Line]:
        """The lines of a batch of that size, of what the model answered."""
        if index.ndim != 2 or len(index) != size or score.shape != index.shape:
            raise BadUpstream("The rec model answered something of another shape than its input asks for.")
        if index.min(initial=0) < 0 or index.max(initial=0) >= len(self._characters):
            raise BadUpstream("The rec model answered a character that its dictionary does not hold.")
        if not np.isfinite(score).all():
            raise BadUpstream("The rec model answered scores that are no numbers.")
        return [ctc_decode(i, s, self._characters) for i, s in zip(index, score, strict=True)]


def natural_width(width: int, height: int, target_height: int) -> int:
    """Width in pixels of a crop scaled to the target height, rounded up as in the original."""
    return max(1, -(-target_height * width // height))


def input_width(width: int, height: int, target_height: int, exponent: float) -> int:
    """The input width in pixels that a crop of this size is squeezed to where it is long, stretched to where short.

    It is one of WIDTHS, scaled to the target height, so nothing is padded, and how a line is distorted depends on its
    own length alone. With an exponent of 1 it keeps its proportions as well as WIDTHS allows.
    """
    natural = 48 * width / height
    wanted = natural * max(LEAST_SQUEEZED, (UNSQUEEZED_WIDTH / natural) ** (1 - exponent))
    return min(WIDTHS, key=lambda w: max(w / wanted, wanted / w)) * target_height // 48


def ctc_decode(index: NDArray[np.integer], score: NDArray[np.float32], characters: Sequence[str]) -> Line:
    """Greedy CTC: the classes (t,) without blanks and without repeats of the step before, as text."""
    kept = index != BLANK
    kept[1:] &= index[1:] != index[:-1]
    steps = kept.nonzero()[0]
    # Python's lists: numpy takes five times as long for so few numbers.
    found, sure = [characters[i] for i in index[steps].tolist()], score[steps].tolist()
    letters = [probability for character, probability in zip(found, sure, strict=True) if character.isalnum()]
    return Line("".join(found), _mean(sure), _mean(letters), index=index, probability=score)


def _mean(values: Sequence[float]) -> float:
    """Their mean; 0 of none."""
    return sum(values) / len(values) if values else 0.0
