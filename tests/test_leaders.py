"""Lines with a leader, the dots between an entry and its page number or price."""

from collections import Counter

import cv2
import numpy as np
import pytest

from ocr_serving.draw import WEIGHT
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE
from ocr_serving.predictor.base import Predictor
from ocr_serving.reading import leaders
from ocr_serving.recognition import Recognizer, ctc_decode
from ocr_serving.settings import Settings

LETTERS = ("", "a", "b", ".", " ")
IS_TEXT = np.array([False, True, True, False, False])


def parts(text, step=8, height=48):
    """Where the parts of a line stand that has this character at each time step, "_" for none, of so many pixels."""
    index = np.array([0 if letter == "_" else LETTERS.index(letter) for letter in text], np.int32)
    return [(part.start, part.stop) for part in leaders.text_parts(index, IS_TEXT, step * len(text), height)]


def test_text_on_both_sides_of_a_leader_or_a_gap_is_apart():
    for between in ("._" * 30, "_" * 60, ". " * 30):
        (left, begin), (end, right) = parts("_a_b_" + between + "_ab_")
        assert left == 0
        assert right == 8 * 69
        assert 8 * 4 < begin < 8 * 9, "little of the leader comes along"
        assert 8 * 61 < end < 8 * 66


def test_text_without_a_wide_gap_is_one_part():
    assert len(parts("a__b" * 20)) == 1
    assert len(parts("a" + "_" * 23 + "b")) == 1, "four times the height"
    assert len(parts("a" + "_" * 24 + "b")) == 2
    assert len(parts("...." * 20 + "ab")) == 1
    assert parts("...." * 20) == parts("") == []


class Misled(Predictor):
    """A rec model that reads the brightness of each 8 pixels as a class, with a score that depends on the width."""

    def __init__(self, whole, alone):
        self.whole, self.alone = whole, alone

    def predict(self, feed, fetch=(), deadline=None):
        batch = feed["x"]
        index = (batch[:, 24, 4::8, 0].astype(np.int32) + 5) // 10
        score = self.whole if batch.shape[2] > 500 else self.alone
        return {CTC_INDEX: index, CTC_SCORE: np.full(index.shape, score, np.float32)}

    def close(self):
        pass


def read(model):
    """How it reads a line 48 pixels high: "ab", a gap of 20 times the height, and "b"."""
    levels = np.repeat(np.array([10, 20, *[0] * 20, 20], np.uint8), 48)
    [line] = Recognizer(model, LETTERS, 48, Settings()).recognize([np.tile(levels[None, :, None], (48, 1, 3))])
    return line


def test_parts_read_better_alone_are_a_line_with_a_space_between():
    line = read(Misled(0.9, 0.95))
    assert line.text == "ab b"
    assert line.score == pytest.approx(0.95)
    assert ctc_decode(line.index, line.probability, LETTERS) == line, "clients of the chained server decode it"


def test_parts_read_worse_alone_do_not_count():
    line = read(Misled(0.9, 0.86))
    assert line.text == "abb"
    assert line.score == pytest.approx(0.9)


ENTRIES = {
    "Opening hours": "7",
    "Borrowing books": "12",
    "Maps": "31",
    "Films and music": "48",
    "The reading room": "56",
    "Children": "83",
    "How to find us": "97",
    "Members": "105",
    "Fees and fines": "118",
    "Rooms for groups": "126",
}


def width(face, text, size):
    return cv2.putText(np.zeros((9, 9, 3), np.uint8), text, (0, 0), (0, 0, 0), face, size, WEIGHT)[0][0]


@pytest.mark.parametrize("leader", [" .", " -"])
def test_a_table_of_contents_is_read_with_its_page_numbers(leader, pipeline):
    face, size = cv2.FontFace("sans"), 24
    page = np.full((1754, 1240, 3), 255, np.uint8)
    for line, (entry, number) in enumerate([*ENTRIES.items()] * 3):
        y = 100 + 52 * line
        (begin, _), _ = cv2.putText(page, entry, (100, y), (0, 0, 0), face, size, WEIGHT)
        end = 1140 - width(face, number, size)
        times = (end - begin - 20) // width(face, leader, size)
        cv2.putText(
            page, leader * times, (end - 10 - times * width(face, leader, size), y), (0, 0, 0), face, size, WEIGHT
        )
        cv2.putText(page, number, (end, y), (0, 0, 0), face, size, WEIGHT)
    found = " ".join(pipeline.run(page).texts).replace(".", " ").replace("-", " ").split()
    words = Counter(word for entry in [*ENTRIES.items()] * 3 for text in entry for word in text.split())
    assert (words & Counter(found)).total() >= 0.95 * words.total()
