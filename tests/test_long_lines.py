"""Lines longer than rec's longest input: the same text as if it had been read at once."""

import difflib

import cv2
import numpy as np
import pytest
import zoo_models
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_serving.draw import WEIGHT
from ocr_serving.errors import EngineFailed
from ocr_serving.predictor.base import Predictor
from ocr_serving.reading import long_lines
from ocr_serving.recognition import LONGEST_LINE, WIDTHS, Recognizer, ctc_decode, natural_width
from ocr_serving.settings import Settings

LETTERS = ("", *"abcdefghijklmnopqrstuvwxyz")


@given(st.integers(1, 50_000), st.integers(1, 200))
def test_lines_are_cut_only_where_they_are_too_long_and_into_pieces_that_rec_takes(width, height):
    parts = long_lines.pieces(width, height, LONGEST_LINE, WIDTHS[-1])
    assert (len(parts) == 1) == (natural_width(width, height, 48) <= LONGEST_LINE)
    assert len(parts) == 1 or all(natural_width(part.stop - part.start, height, 48) <= WIDTHS[-1] for part in parts)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(401, 1500), st.integers(7, 90), st.sampled_from([1, 4]))
def test_pieces_that_read_the_same_are_joined_to_what_the_whole_would_read(data, total, height, repeats):
    """One class a step. Each piece is in time or a step late, and reads nonsense near the edges where it was cut."""
    classes = st.lists(st.integers(0, 5), min_size=total // repeats, max_size=total // repeats)
    line = np.repeat(np.array(data.draw(classes), np.int32), repeats)
    step = height * 8 / 48
    parts = long_lines.pieces(round(len(line) * step), height, LONGEST_LINE, LONGEST_LINE)
    steps = []
    for part in parts:
        first = round(part.start / step) + (data.draw(st.integers(0, 1)) if part.start else 0)
        read = np.zeros(LONGEST_LINE // 8, np.int32)
        read[: len(line) - first] = line[first : first + len(read)]
        if part is not parts[0]:
            read[:5] = 6
        if part is not parts[-1]:
            read[-5:] = 6
        steps.append((read, np.ones(len(read), np.float32)))
    index, probability = long_lines.join(steps, parts, step)
    assert len(index) == len(probability)
    assert text_of(index) == text_of(line)


def test_a_piece_may_say_the_same_two_steps_off():
    """A step late, and as much again where two places are rounded apart."""
    line = np.random.default_rng(0).integers(0, 6, 760, np.int32)
    step = 7 * 8 / 48
    parts = long_lines.pieces(round(len(line) * step), 7, LONGEST_LINE, LONGEST_LINE)
    steps = []
    for part, late in zip(parts, (0, 0, 1), strict=True):
        read = np.zeros(LONGEST_LINE // 8, np.int32)
        seen = line[round(part.start / step) + late :][: len(read)]
        read[: len(seen)] = seen
        steps.append((read, np.ones(len(read), np.float32)))
    assert text_of(long_lines.join(steps, parts, step)[0]) == text_of(line)


def text_of(classes):
    return ctc_decode(classes, np.ones(len(classes), np.float32), LETTERS).text


class Stripes(Predictor):
    """A rec model that reads the brightness of each 8 pixels as a class, an edge as blank; it fails at `fails`."""

    def __init__(self, fails=None):
        self.fails = fails
        self.widths = []

    def predict(self, feed, fetch=(), deadline=None):
        batch = feed["x"]
        self.widths.append(batch.shape[2])
        steps = batch[:, 24, :, 0].astype(np.int32).reshape(len(batch), -1, 8)
        index = np.where(np.ptp(steps, axis=2) > 1, 0, (steps[:, :, 4] + 4) // 10)
        if self.fails is not None and (index == self.fails).any():
            raise EngineFailed("It cannot.")
        return {"ctc_index": index, "ctc_score": np.ones(index.shape, np.float32)}

    def close(self):
        pass


def striped(text):
    """A line 48 pixels high that Stripes reads as the text: 48 pixels a letter, 48 between."""
    levels = [level for letter in text for level in (10 * LETTERS.index(letter), 0)]
    return np.repeat(np.repeat(np.array(levels, np.uint8), 48)[None, :, None], 48, axis=0).repeat(3, axis=2)


def recognizer(model):
    return Recognizer(model, LETTERS, 48, Settings())


@pytest.mark.parametrize("letters", [10, 33, 34, 133, 333])
def test_a_line_of_any_length_is_read_whole_next_to_others(letters):
    text = ("abcdefghijk" * 100)[:letters]
    model = Stripes()
    read = recognizer(model).recognize([striped("ab"), striped(text), striped("kk")])
    assert [line.text for line in read] == ["ab", text, "kk"]
    assert read[1].score == 1
    assert len(read[1].index) >= 4 * letters
    assert max(model.widths) <= WIDTHS[-1]


def test_a_line_of_which_a_piece_fails_fails_alone():
    read = recognizer(Stripes(fails=12)).recognize([striped("ab"), striped("a" * 200 + "l"), striped("b")])
    assert [line.error is None for line in read] == [True, False, True]
    assert read[1].text == ""


WORDS = (
    "library",
    "opens",
    "nine",
    "closes",
    "evening",
    "readers",
    "borrow",
    "five",
    "books",
    "month",
    "maps",
    "films",
)


@pytest.mark.parametrize(("height", "size", "least"), [(10, 8, 0.9), (24, 16, 1.0)])
def test_a_long_strip_of_text_is_read_to_its_end(height, size, least, pipeline):
    """Where letters are 8 pixels high, some are misread; which ones, hangs on a hundredth of a pixel."""
    strip, words, x = np.full((height, 20000 if height < 20 else 8000, 3), 255, np.uint8), [], 8
    random = np.random.default_rng(3)
    while x < strip.shape[1] - 1000:
        words.append(f"{random.choice(WORDS)}{len(words)}")
        after, _ = cv2.putText(
            strip, words[-1], (x, height // 2 + size * 2 // 5), (20, 20, 20), cv2.FontFace("sans"), size, WEIGHT
        )
        x = after[0] + size // 2
    [line] = pipeline.run(strip).texts
    assert difflib.SequenceMatcher(None, line.replace(" ", ""), "".join(words), autojunk=False).ratio() >= least


def test_small_print_across_a_wide_screen_keeps_its_letters():
    """Squeezed, it has fewer time steps than letters that come twice need."""
    text = " ".join(["still all officers will fill the little coffee office with efficient effort"] * 5)
    strip = np.full((24, 2256, 3), 255, np.uint8)
    cv2.putText(strip, text, (6, 17), (0, 0, 0), cv2.FontFace("uni"), 16, WEIGHT)
    rec = zoo_models.predictor("ocr_rec")
    [line] = Recognizer(rec, rec.model.characters, rec.model.image_height, Settings()).recognize([strip])
    assert line.text.replace(" ", "") == text.replace(" ", "")


def test_a_long_screenshot_is_read_line_by_line(pipeline):
    page, lines, y = np.full((3000, 640, 3), 255, np.uint8), [], 10
    random = np.random.default_rng(0)
    while (y := y + int(random.integers(40, 60))) < 2950:
        lines.append(" ".join([*random.choice(WORDS, 4), str(len(lines))]))
        cv2.putText(page, lines[-1], (20, y), (30, 30, 30), cv2.FontFace("sans"), int(random.integers(16, 28)), WEIGHT)
    assert [text.replace(" ", "") for text in pipeline.run(page).texts] == [line.replace(" ", "") for line in lines]
