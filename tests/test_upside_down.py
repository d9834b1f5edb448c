"""Pages that lie on their heads or sides are read as those that do not, and those as ever."""

from collections import Counter

import cv2
import numpy as np
import PIL.Image
import pytest
import zoo_models
from ocr_requests import without_spaces
from PIL.Image import Resampling

from ocr_serving import samples
from ocr_serving.detection import Detector
from ocr_serving.draw import WEIGHT
from ocr_serving.errors import BadUpstream, DeadlineExceeded, EngineFailed, Overloaded, UpstreamUnavailable
from ocr_serving.pipeline import Pipeline
from ocr_serving.reading import upside_down
from ocr_serving.recognition import Line, Recognizer
from ocr_serving.settings import Settings

PAGES = {sample.name: sample for sample in samples.render() if sample.name in ("imgs/document.jpg", "imgs/receipt.jpg")}


class Counting(Recognizer):
    pages = 0

    def recognize(self, crops, deadline=None):
        self.pages += 1
        return super().recognize(crops, deadline)


@pytest.fixture
def pipeline():
    rec = zoo_models.predictor("ocr_rec")
    recognizer = Counting(rec, rec.model.characters, rec.model.image_height, Settings())
    return Pipeline(Detector(zoo_models.predictor("ocr_det"), Settings()), recognizer, Settings().rec_min_score)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_turned_by_half_reads_as_the_page(pipeline, name):
    upright = pipeline.run(PAGES[name].image)
    assert pipeline._recognizer.pages == 1
    page = pipeline.run(np.ascontiguousarray(PAGES[name].image[::-1, ::-1]))
    assert without_spaces(page.texts) == without_spaces(upright.texts)
    height, width = PAGES[name].image.shape[:2]
    centres = [quads.mean(axis=1) for quads in (page.quads, upright.quads)]
    np.testing.assert_allclose([width, height] - centres[0], centres[1], atol=6)


@pytest.mark.parametrize("turn", [cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE])
def test_a_page_on_its_side_reads_as_the_page(pipeline, turn):
    page = pipeline.run(cv2.rotate(PAGES["imgs/document.jpg"].image, turn))
    assert without_spaces(page.texts) == without_spaces(PAGES["imgs/document.jpg"].texts)


@pytest.mark.parametrize("degrees", [80, 95, 265])
def test_a_page_on_its_side_may_be_askew(pipeline, degrees):
    """In a photo it is never quite so; of long lines that stand, both left corners are then at one end."""
    document = PAGES["imgs/document.jpg"]
    upright = PIL.Image.fromarray(document.image)
    tilted = upright.rotate(degrees, Resampling.BICUBIC, expand=True, fillcolor=(128, 128, 128))
    page = pipeline.run(np.array(tilted))
    assert without_spaces(page.texts) == without_spaces(document.texts)


def lines(*scores):
    return [Line("text", score, score) for score in scores]


def boxes(places):
    corners = np.array([[0, 0], [90, 0], [90, 9], [0, 9]], np.float32)
    return np.stack([corners + place for place in places])


def column(count, left=0):
    return [(left, 20 * i) for i in range(count)]


def better(first, turned, quads=None):
    """Which lines lie upside down, and all as they are best read; of all, the reading turned by half is known."""
    again = dict(enumerate(turned))
    lying = upside_down.which(first, again, boxes(column(len(first))) if quads is None else quads)
    return upside_down.better(first, again, lying), lying.tolist()


def test_doubtful_lines_are_read_turned_if_many_are_very_doubtful_or_most_are_doubtful():
    assert upside_down.doubtful(lines(0.0, 0.95, 0.5, 0.86), boxes(column(4))) == [2, 3]
    sure = lines(*[1.0] * 10)
    few, many = [sure + lines(0.85, 0.85, *[0.7] * count) for count in (5, 6)]
    assert upside_down.doubtful(few, boxes(column(17))) == []
    assert upside_down.doubtful(many, boxes(column(18))) == [*range(10, 18)]


def test_doubtful_lines_that_stand_are_read_turned_be_they_ever_so_few():
    stands = boxes([(0, 0)])[:, [1, 2, 3, 0]] @ np.array([[0, 1], [-1, 0]], np.float32)
    quads = np.concatenate([boxes(column(10)), stands])
    assert upside_down.doubtful(lines(*[0.8] * 2, *[1.0] * 8, 0.8), quads) == [10]


def test_lines_that_read_as_nothing_are_read_turned_where_no_other_is_sure():
    assert upside_down.doubtful(lines(0.0, 0.5), boxes(column(2))) == [0, 1]
    assert upside_down.doubtful([Line("-", 0.6)], boxes(column(1))) == [0]
    assert upside_down.doubtful([Line("", 0.0, error=EngineFailed("no"))], boxes(column(1))) == []


@pytest.mark.parametrize("turn", [cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE])
def test_a_single_line_that_reads_as_nothing_upside_down_is_read(pipeline, turn):
    line = next(sample for sample in samples.render() if sample.name == "rec_img/line_1.png")
    assert pipeline.run(cv2.rotate(line.image, turn)).texts == line.texts


@pytest.mark.parametrize("beside", [cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE])
def test_pages_of_one_picture_may_lie_in_different_ways(pipeline, beside):
    receipt = PAGES["imgs/receipt.jpg"].image
    side = max(receipt.shape)
    picture = np.full((side, 2 * side, 3), 255, np.uint8)
    for left, page in ((0, receipt), (side, cv2.rotate(receipt, beside))):
        picture[: page.shape[0], left : left + page.shape[1]] = page
    words = Counter(" ".join(pipeline.run(picture).texts).split())
    truth = Counter(" ".join(2 * PAGES["imgs/receipt.jpg"].texts).split())
    assert (words & truth).total() > 0.93 * truth.total()


def test_single_letters_have_no_say_in_whether_a_page_is_turned():
    page, again = [Line("pJo", 0.5, 0.5)] * 2, [Line("old", 0.97, 0.97)] * 2
    cells, turned = [Line("9", 0.9, 0.9)] * 5, [Line("6", 0.95, 0.95)] * 5
    found, lying = better([*page, *cells], [*again, *turned])
    assert all(lying)
    assert [line.text for line in found] == ["old"] * 2 + ["6"] * 5


@pytest.mark.parametrize(
    ("score", "of_turned", "text", "believed"),
    [(0.7, 0.95, "ab", True), (0.85, 0.92, "ab", False), (0.3, 0.85, "ab", False), (0.3, 0.99, "a", False)],
)
def test_a_line_turned_by_half_is_believed_if_it_reads_much_better(score, of_turned, text, believed):
    others = [Line("none of it", 0.9, 0.9)] * 3
    line, turned = Line("xy", score, score), Line(text, of_turned, of_turned)
    found, lying = better([line, *others], [turned, *others])
    assert found[0] is (turned if believed else line)
    assert not any(lying)


def test_a_single_line_does_not_tell_how_others_lie():
    _, lying = better(lines(*[0.6] * 5), lines(0.97, *[0.6] * 4))
    assert not any(lying)


def test_numbers_do_not_tell_how_the_lines_around_them_lie():
    quads = boxes([*column(6), *column(3, 900), *column(6, 1000)])
    first = [*lines(*[0.97] * 6), *lines(*[0.6] * 3), *[Line("60", 0.95, 0.95)] * 6]
    turned = [*lines(*[0.6] * 6), *lines(*[0.97] * 3), *[Line("09", 0.93, 0.93)] * 6]
    _, lying = better(first, turned, quads)
    assert lying == [False] * 6 + [True] * 9


def test_numbers_are_read_as_the_lines_around_them_lie():
    upright, numbers = lines(*[0.97] * 4), [Line("00:60", 0.95, 0.95)]
    quads = boxes([*column(4), *column(4, 500), (500, 80)])
    first = [*upright, *lines(*[0.6] * 4), *numbers]
    turned = [*lines(*[0.6] * 4), *lines(*[0.97] * 4), Line("09:00", 0.93, 0.93)]
    found, lying = better(first, turned, quads)
    assert lying == [False] * 4 + [True] * 5
    assert found == [*upright, *turned[4:]]


def test_prices_beside_words_that_rec_cannot_read_stay_as_they_are():
    """On menus in Hebrew or Armenian a few lines read well turned by half, too, by chance."""
    first = [line for word in lines(*[0.7] * 8) for line in (word, Line("60", 0.99, 0.99))]
    turned = [line for word in lines(0.95, 0.95, *[0.7] * 6) for line in (word, Line("09", 0.99, 0.99))]
    found, lying = better(first, turned)
    assert not any(lying)
    assert [line.text for line in found[1::2]] == ["60"] * 8


@pytest.mark.parametrize("error", [BadUpstream, DeadlineExceeded, EngineFailed, Overloaded, UpstreamUnavailable])
def test_a_page_that_cannot_be_read_again_is_answered_as_it_was_read(error):
    class ReadsOnce:
        calls = 0
        height = 48

        def recognize(self, crops, deadline=None):
            self.calls += 1
            if self.calls > 1:
                raise error("It broke.")
            return lines(*[0.6] * len(crops))

    det = Detector(zoo_models.predictor("ocr_det"), Settings())
    page = Pipeline(det, ReadsOnce(), 0.5).run(PAGES["imgs/receipt.jpg"].image)
    assert len(page.texts) > 5


def test_a_line_that_fails_when_turned_stays_as_it_was_read():
    first, turned = lines(0.5, 0.6, 0.0), [*lines(0.98, 0.97), Line("", 0.0, error=EngineFailed("It broke."))]
    chosen, lying = better(first, turned)
    assert all(lying)
    assert chosen[2] is first[2]


@pytest.mark.parametrize(("size", "order"), [((200, 20), [1, 0]), ((20, 200), [0, 1])], ids=["lines", "columns"])
def test_lines_of_a_turned_page_read_from_its_foot_and_columns_from_the_left(size, order):
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * size
    quads, read = np.stack([corners, corners + size]), [Line("first", 1, 1), Line("second", 1, 1)]
    in_order, as_read = upside_down.in_order(quads, read)
    np.testing.assert_array_equal(in_order, quads[order])
    assert as_read == [read[i] for i in order]


def test_on_a_page_that_lies_upside_down_numbers_are_read_so_too():
    lines_as_they_lie, turned = lines(0.5, 0.6, 0.97), lines(0.98, 0.97, 0.95)
    assert better(lines_as_they_lie, turned) == (turned, [True] * 3)


def chart(label, turn):
    """A chart whose upright axis is named so."""
    name = np.full((40, 260, 3), 255, np.uint8)
    cv2.putText(name, label, (10, 28), (40, 36, 34), cv2.FontFace("uni"), 20, WEIGHT)
    page = np.full((480, 640, 3), 255, np.uint8)
    page[110:370, 16:56] = cv2.rotate(name, turn)
    for i, month in enumerate(("一月份", "二月份", "三月份", "四月份")):
        cv2.putText(page, month, (130 + 120 * i, 440), (40, 36, 34), cv2.FontFace("uni"), 22, WEIGHT)
        cv2.rectangle(page, (140 + 120 * i, 120 + 60 * i), (180 + 120 * i, 400), (180, 120, 60), -1)
    return page


@pytest.mark.parametrize("turn", [cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE], ids=["down", "up"])
@pytest.mark.parametrize("label", ["销售额（万元）", "Revenue in millions"])
def test_the_name_of_an_upright_axis_may_read_either_way(pipeline, label, turn):
    texts = without_spaces(pipeline.run(chart(label, turn)).texts)
    assert without_spaces([label])[0] in [text.replace("(", "（").replace(")", "）") for text in texts]
    assert {"一月份", "四月份"} <= set(texts)
