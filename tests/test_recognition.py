import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import golden
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_serving import recognition
from ocr_serving.deadline import Deadline
from ocr_serving.errors import BadUpstream, DeadlineExceeded
from ocr_serving.model_dir import CTC_INDEX, CTC_SCORE
from ocr_serving.predictor.base import Predictor
from ocr_serving.settings import Settings

LETTERS = ("", "a", "b", "🇩🇪", " ")


class BrightnessPredictor(Predictor):
    """A rec model that reads each crop's brightness as one class index, and records the shapes it was given."""

    def __init__(self) -> None:
        self.shapes = []

    def predict(self, feed, fetch=(), deadline=None):
        batch = feed["x"]
        self.shapes.append(batch.shape)
        index = (batch[:, 20, :1, 0] // 10).astype(np.int32)
        return {CTC_INDEX: index, CTC_SCORE: np.ones(index.shape, np.float32)}

    def close(self):
        pass


def crop(value, width, height=48):
    return np.full((height, width, 3), 10 * value, np.uint8)


def recognizer(predictor, batch=8, height=48):
    return recognition.Recognizer(predictor, LETTERS, height, Settings(rec_batch=batch))


def test_decoding_equals_the_genuine_op():
    ops = golden.ops()
    # the texts' own characters stand in for the dictionary of 6625 at the indices that occur
    characters = dict(zip(distinct(ops["rec_argmax"]), distinct_texts(ops["texts"]), strict=True))
    for index, score, text, mean in zip(ops["rec_argmax"], ops["rec_max"], ops["texts"], ops["scores"], strict=True):
        line = recognition.ctc_decode(index, score, characters)
        assert line.text == text
        assert line.score == pytest.approx(float(mean), abs=1e-6)


def distinct(rows):
    return list(dict.fromkeys(int(i) for row in rows for i in row if i))


def distinct_texts(texts):
    return list(dict.fromkeys("".join(texts)))


@given(st.lists(st.integers(0, 4), max_size=30))
def test_decoding_equals_the_definition(steps):
    """CTC's collapse: merge repeats, then drop blanks."""
    merged = [c for i, c in enumerate(steps) if i == 0 or c != steps[i - 1]]
    line = recognition.ctc_decode(np.array(steps, np.int32), np.ones(len(steps), np.float32), LETTERS)
    assert line.text == "".join(LETTERS[c] for c in merged if c)
    assert line.score == (1.0 if any(merged) else 0.0)


def test_dictionary_entries_may_be_several_characters():
    """Quirk of the original: the dictionary was split into single characters, which shifted all after a flag."""
    line = recognition.ctc_decode(np.array([1, 3, 0, 4, 2]), np.ones(5, np.float32), LETTERS)
    assert line.text == "a🇩🇪 b"


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_each_crop_gets_its_own_text_in_order(batch):
    crops = [crop(1 + i % 2, width) for i, width in enumerate([50, 900, 51, 52, 300, 53, 54, 55, 56, 57, 58])]
    lines = recognizer(BrightnessPredictor(), batch).recognize(crops)
    assert [line.text for line in lines] == ["ab"[i % 2] for i in range(len(crops))]


@pytest.mark.parametrize(
    ("device", "lines", "sizes"), [("cpu", 8, [4, 4]), ("cpu", 1, [1]), ("cpu", 40, [8] * 5), ("gpu", 15, [8, 7])]
)
def test_few_lines_are_shared_among_the_cores(device, lines, sizes):
    predictor = BrightnessPredictor()
    read = recognition.Recognizer(predictor, LETTERS, 48, Settings(device=device, threads=2))
    read.recognize([crop(1, 90)] * lines)
    assert sorted((shape[0] for shape in predictor.shapes), reverse=True) == sizes


def test_the_shortest_batch_is_the_last():
    """It is the one that cores may have to wait for."""
    predictor = BrightnessPredictor()
    read = recognition.Recognizer(predictor, LETTERS, 48, Settings(threads=1))
    read.recognize([crop(1, width) for width in [*[90] * 5, 2000, 700, 700, 1000]])
    lengths = [shape[0] * shape[2] for shape in predictor.shapes]
    assert lengths == sorted(lengths, reverse=True)


def test_width_depends_on_the_crop_alone():
    predictor = BrightnessPredictor()
    recognizer(predictor).recognize([crop(1, 100)])
    alone = predictor.shapes[-1][2]
    predictor.shapes.clear()
    recognizer(predictor).recognize([crop(1, 2000), crop(1, 100)])
    assert alone in [shape[2] for shape in predictor.shapes]


def test_width_follows_the_models_height():
    """Quirk of the original: the width was computed for a height of 32 when the model's is 48."""
    predictor = BrightnessPredictor()
    recognizer(predictor, height=48).recognize([crop(1, 320, 32)])
    assert predictor.shapes[-1][1:3] == (48, 368), "320 x 32 is 480 x 48"
    assert recognition.input_width(320, 32, 32, 0.8) == 245, "the shape for 368 at a height of 48"


@given(st.integers(1, 10000), st.integers(1, 2000))
def test_wider_crops_get_wider_inputs(width, height):
    chosen = recognition.input_width(width, height, 48, 0.8)
    assert chosen in recognition.WIDTHS
    assert chosen <= recognition.input_width(width + 1, height, 48, 0.8)


def test_lines_are_hardly_squeezed_when_short_and_never_to_less_than_six_tenths():
    for width in range(48, recognition.LONGEST_LINE + 1):
        squeezed = recognition.input_width(width, 48, 48, 0.8)
        assert 0.6 < squeezed / width < 1.36
        if width <= 320:
            assert squeezed > 0.8 * width


@given(st.integers(48, recognition.WIDTHS[-1]))
def test_an_exponent_of_one_keeps_proportions(width):
    assert 0.85 < recognition.input_width(width, 48, 48, 1.0) / width < 1.2


def test_a_line_fills_its_input():
    """Nothing is padded: what is beside a line would be work for nothing."""
    seen = []

    class Recording(BrightnessPredictor):
        def predict(self, feed, fetch=(), deadline=None):
            seen.append(feed["x"].copy())
            return super().predict(feed, fetch, deadline)

    recognizer(Recording()).recognize([crop(1, 333)])
    assert (seen[0] == 10).all()


class Slow(BrightnessPredictor):
    """Takes a while for each run, and remembers whose lines it read."""

    def predict(self, feed, fetch=(), deadline=None):
        time.sleep(0.02)
        return super().predict(feed, fetch, deadline)


@pytest.mark.parametrize(("model", "least", "most"), [(BrightnessPredictor, 20, 100), (Slow, 1, 9)])
def test_a_call_holds_as_many_lines_as_the_model_reads_in_a_moment(model, least, most):
    calls = []

    class Counting(model):
        def predict_each(self, feeds, fetch=(), deadline=None):
            calls.append(len(feeds))
            return super().predict_each(feeds, fetch, deadline)

    recognition.Recognizer(Counting(), LETTERS, 48, Settings(threads=2, rec_batch=1)).recognize([crop(1, 100)] * 100)
    assert least <= max(calls) <= most
    assert sum(calls) == 100


class Clocked(BrightnessPredictor):
    """Takes `seconds` for each line by a clock of its own, notes the sizes of calls; a line of 2 waits until released.

    Each thread has a time of its own, as if each ran on a core of its own.
    """

    def __init__(self, monkeypatch):
        super().__init__()
        self.seconds = 0.001
        self.calls = []
        self.waits, self.release = threading.Event(), threading.Event()
        self.clock = threading.local()
        monkeypatch.setattr(recognition, "time", SimpleNamespace(monotonic=self.now))

    def now(self):
        return getattr(self.clock, "seconds", 0.0)

    def predict_each(self, feeds, fetch=(), deadline=None):
        self.calls.append(len(feeds))
        self.clock.seconds = self.now() + self.seconds * len(feeds)
        if feeds[0]["x"].flat[0] == 20:
            self.waits.set()
            assert self.release.wait(60)
        return super().predict_each(feeds, fetch, deadline)

    def calls_for(self, read, lines):
        self.calls.clear()
        read.recognize([crop(1, 100)] * lines)
        return self.calls.copy()


def test_calls_are_smaller_while_another_image_is_read(monkeypatch):
    predictor = Clocked(monkeypatch)
    read = recognition.Recognizer(predictor, LETTERS, 48, Settings(threads=2, rec_batch=1))
    alone = max(predictor.calls_for(read, 1000))
    with ThreadPoolExecutor(1) as other:
        other.submit(read.recognize, [crop(2, 100)])
        assert predictor.waits.wait(60)
        crowded = max(predictor.calls_for(read, 1000))
        predictor.release.set()
    assert alone > 2 * crowded
    assert max(predictor.calls_for(read, 1000)) > 2 * crowded


def test_a_model_that_becomes_slower_soon_gets_shorter_calls(monkeypatch):
    predictor = Clocked(monkeypatch)
    read = recognition.Recognizer(predictor, LETTERS, 48, Settings(threads=1, rec_batch=1))
    before = max(predictor.calls_for(read, 2000))
    predictor.seconds *= 10
    calls = predictor.calls_for(read, 2000)
    assert calls[0] > before / 2
    assert calls[20] < before / 5


def test_a_line_need_not_wait_for_all_lines_of_another_image():
    predictor = Slow()
    read = recognition.Recognizer(predictor, LETTERS, 48, Settings(threads=2, rec_batch=1))
    with ThreadPoolExecutor(1) as other:
        page = other.submit(read.recognize, [crop(1, 100)] * 300)
        while len(predictor.shapes) < 2:
            time.sleep(0.001)
        read.recognize([crop(2, 100)])
        assert len(predictor.shapes) < 50, "runs before its own was done"
        assert not page.done()
        assert len(page.result()) == 300


def test_the_time_runs_out_while_lines_are_read():
    read = recognition.Recognizer(Slow(), LETTERS, 48, Settings(threads=1, rec_batch=1))
    with pytest.raises(DeadlineExceeded, match="while its lines were read"):
        read.recognize([crop(1, 100)] * 1000, Deadline.after(0.01))


def test_a_request_whose_time_ran_out_asks_the_model_no_more():
    calls, release = [], threading.Event()

    class Held(BrightnessPredictor):
        def predict_each(self, feeds, fetch=(), deadline=None):
            calls.append(len(feeds))
            assert release.wait(60)
            return super().predict_each(feeds, fetch, deadline)

    read = recognition.Recognizer(Held(), LETTERS, 48, Settings(threads=1, rec_batch=1))
    with pytest.raises(DeadlineExceeded):
        read.recognize([crop(1, 100)] * 1000, Deadline.after(0.05))
    release.set()
    read.recognize([crop(1, 100)])
    assert len(calls) <= 2, "the one under way then, and the next image's"


def test_no_crops_no_lines():
    assert recognizer(BrightnessPredictor()).recognize([]) == []


@pytest.mark.parametrize("index", [-1, len(LETTERS)])
def test_a_character_outside_the_dictionary_is_the_models_fault(index):
    with pytest.raises(BadUpstream):
        recognizer(NarrowSighted(1.0, squeezed=index)).recognize([crop(1, 100)])


class NarrowSighted(BrightnessPredictor):
    """Reads "a" where a line is squeezed, with a score of its own, and where it is not "b" or another class."""

    def __init__(self, squeezed_score, squeezed=1, natural=2, steps=40):
        super().__init__()
        self.squeezed_score, self.steps = squeezed_score, steps
        self.squeezed, self.natural = squeezed, natural

    def predict(self, feed, fetch=(), deadline=None):
        batch = feed["x"]
        self.shapes.append(batch.shape)
        squeezed = batch.shape[2] < 900
        index = np.full((len(batch), self.steps), self.squeezed if squeezed else self.natural, np.int32)
        return {CTC_INDEX: index, CTC_SCORE: np.full(index.shape, self.squeezed_score if squeezed else 0.7, np.float32)}


@pytest.mark.parametrize(("score", "text", "runs"), [(0.9, "a", 1), (0.8, "a", 2), (0.6, "b", 2)])
def test_a_squeezed_line_that_is_read_doubtfully_is_read_again_unsqueezed(score, text, runs):
    predictor = NarrowSighted(score)
    [line] = recognizer(predictor).recognize([crop(1, 960)])
    assert line.text == text
    assert line.score == pytest.approx(max(score, 0.7))
    assert len(predictor.shapes) == runs


@pytest.mark.parametrize(("score", "runs"), [(0.98, 2), (0.995, 1)])
def test_a_squeezed_line_with_a_letter_at_every_step_is_sure_only_near_one(score, runs):
    """Letters between them, or the second of two alike, have no step left."""
    predictor = NarrowSighted(score, steps=1)
    recognizer(predictor).recognize([crop(1, 960)])
    assert len(predictor.shapes) == runs


@pytest.mark.parametrize(("squeezed", "natural", "text", "runs"), [(5, 2, ".", 1), (1, 5, "a", 2), (1, 0, "a", 2)])
def test_doubt_is_of_letters_and_digits_alone(squeezed, natural, text, runs):
    """Dots are read once; neither dots nor nothing takes the place of a letter."""
    predictor = NarrowSighted(0.6, squeezed, natural)
    [line] = recognition.Recognizer(predictor, (*LETTERS, "."), 48, Settings()).recognize([crop(1, 960)])
    assert (line.text, len(predictor.shapes)) == (text, runs)


def test_a_line_that_is_not_squeezed_is_read_once():
    predictor = NarrowSighted(0.1)
    recognizer(predictor).recognize([crop(1, 100)])
    assert len(predictor.shapes) == 1
