import cv2
import golden
import numpy as np
import pyclipper
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_serving import detection
from ocr_serving.errors import BadUpstream, LimitExceeded
from ocr_serving.logistic import logit
from ocr_serving.settings import Settings


class MapPredictor:
    """A det model whose map is known: text where the image is white."""

    def __init__(self) -> None:
        self.seen = []

    def predict(self, feed, fetch=(), deadline=None):
        image = feed["x"]
        self.seen.append(image.shape)
        logits = np.where(image[:, None, :, :, 0] > 127, 9, -9).astype(np.float32)
        return dict.fromkeys(fetch, logits)

    def close(self):
        pass


def kernels(*rectangles, size=(400, 640)):
    image = np.zeros((*size, 3), np.uint8)
    for x, y, width, height in rectangles:
        image[y : y + height, x : x + width] = 255
    return image


def detect(image, **settings):
    return detection.Detector(MapPredictor(), Settings(**settings)).detect(image)


def test_boxes_equal_the_genuine_ops_but_for_its_rounding():
    """The genuine boxes are truncated to whole pixels three times over; ours are not, hence the 3 pixels."""
    ops = golden.ops()
    quads, scores, _ = detection.boxes_from_logits(logit(ops["det_out_window"]), Settings(det_box_thresh=0.5))
    quads = (quads + ops["det_out_window_origin"]) * np.array([720 / 544, 1150 / 960])
    assert len(scores) == len(ops["boxes_raw"])
    assert np.abs(quads - ops["boxes_raw"]).max() < 3


def test_boxes_are_not_truncated_to_whole_pixels():
    """Quirk of the original: boxes came back as int16, truncated."""
    image = cv2.resize(kernels((100, 100, 200, 21)), (1000, 625))
    quads = detect(image).quads
    assert quads.dtype == np.float32
    assert (quads != np.trunc(quads)).any()


def test_boxes_beyond_int16_survive():
    """Quirk of the original: coordinates over 32767 overflowed."""
    image = np.zeros((40, 40000, 3), np.uint8)
    image[5:35, 39000:39900] = 255
    assert detect(image).quads[0, 1, 0] > 39000


@given(st.floats(4, 300), st.floats(4, 300), st.floats(0.1, 3))
def test_unclip_equals_an_offset_polygon(width, height, ratio):
    """The reference: pyclipper's offset with rounded corners, on a grid fine enough for its rounding not to count."""
    grid = 1000
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) * grid
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(corners.tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    widened = np.array(offset.Execute(grid * width * height * ratio / (2 * (width + height)))[0]) / grid
    assert detection.unclip((width, height), ratio) == pytest.approx(np.ptp(widened, axis=0), abs=0.05)


def test_boxes_come_in_reading_order_with_scores():
    found = detect(kernels((300, 100, 200, 24), (40, 104, 200, 24), (40, 20, 200, 24)))
    assert found.quads[:, 0, 0].round(-1).tolist() == [20, 20, 280]
    assert found.quads[0, 0, 1] < found.quads[1, 0, 1]
    np.testing.assert_allclose(found.scores, 1, atol=0.05)


def test_boxes_are_in_pixels_of_the_image_however_it_was_shrunk():
    small = detect(kernels((100, 50, 300, 40))).quads
    large = detect(cv2.resize(kernels((100, 50, 300, 40)), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)).quads
    np.testing.assert_allclose(large / 4, small, atol=2)


def test_no_text_is_an_answer():
    found = detect(kernels())
    assert found.quads.shape == (0, 4, 2)
    assert found.scores.shape == (0,)


def test_small_print_is_found():
    """Quirk of the original: kernels three pixels high, as text of ten pixels has, were dropped as noise."""
    for height in (3, 4, 5):
        [quad] = detect(kernels((100, 100, 200, height))).quads
        assert quad[3, 1] - quad[0, 1] > height


@pytest.mark.parametrize(("width", "height"), [(3, 100), (100, 3), (90, 90), (1, 1)])
def test_boxes_of_a_small_image_are_inside_it(width, height):
    """The border around it is det's alone; here all that det sees is text."""

    class Everything(MapPredictor):
        def predict(self, feed, fetch=(), deadline=None):
            _, rows, columns, _ = feed["x"].shape
            return {"det_logits": np.full((1, 1, rows, columns), 5, np.float32)}

    quads = (
        detection.Detector(Everything(), Settings(det_min_side=0)).detect(np.zeros((height, width, 3), np.uint8)).quads
    )
    assert quads.min(initial=0) >= 0
    assert (quads.reshape(-1, 2) <= (width - 1, height - 1)).all()


SHEET = (1280, 1920)
"""Twice as large as det sees it."""
LOW = (100, 100, 400, 4), (100, 200, 400, 8)
"""Kernels as letters of 8 and 16 pixels have; at half the size the first is noise."""


def looks(image, **settings):
    """The sizes in which det sees an image, and how many boxes it finds."""
    model = MapPredictor()
    found = detection.Detector(model, Settings(**settings)).detect(image)
    return [shape[1:3] for shape in model.seen], len(found.quads)


def test_where_text_is_small_det_looks_again_at_twice_the_size():
    once, twice = [(640, 960)], [(640, 960), SHEET]
    assert looks(kernels(*LOW, size=SHEET)) == (twice, 2)
    assert looks(kernels(*LOW, size=SHEET), det_small_text=0) == (once, 1)
    assert looks(kernels((100, 100, 400, 24), (100, 200, 400, 24), size=SHEET)) == (once, 2)


def test_one_low_box_of_many_is_not_small_text():
    lines = [(100, 100 * row, 400, 24) for row in range(2, 10)]
    assert looks(kernels((100, 100, 400, 8), *lines, size=SHEET)) == ([(640, 960)], 9)


def test_where_nothing_is_found_det_looks_again_if_the_image_is_twice_as_large():
    assert looks(kernels(size=SHEET)) == ([(640, 960), SHEET], 0)
    assert looks(kernels(LOW[0], size=SHEET)) == ([(640, 960), SHEET], 1)
    assert looks(kernels(size=SHEET), det_small_text=0) == ([(640, 960)], 0)
    assert looks(kernels(size=(720, 1280))) == ([(544, 960)], 0)
    assert looks(kernels(size=(1080, 1920))) == ([(544, 960), (1088, 1920)], 0)


def test_small_images_are_enlarged_but_not_what_was_cut_out():
    image = kernels((40, 40, 200, 24), size=(320, 480))
    assert looks(image) == ([(640, 960)], 1)
    assert looks(image, det_enlarge=1) == ([(320, 480)], 1)
    assert looks(kernels((40, 40, 200, 24), size=(96, 480))) == ([(160, 544)], 1)


def test_a_closer_look_that_finds_too_much_does_not_count():
    image = kernels(*LOW, size=SHEET)
    assert looks(image, det_max_boxes=1) == ([(640, 960), SHEET], 1)


def test_boxes_of_a_closer_look_are_in_pixels_of_the_image():
    quads = detect(kernels(*LOW, size=SHEET)).quads
    whole = detect(kernels(*LOW, size=SHEET), det_limit_side=1920, det_small_text=0).quads
    np.testing.assert_allclose(quads, whole)


class Contents(MapPredictor):
    """A det model that half believes grey, a leader, to be text, but not in a dimmed picture, whose white is not 255.

    Where text is faint, it sees none at all in a dimmed picture.
    """

    def __init__(self, faint=False):
        super().__init__()
        self.faint = faint

    def predict(self, feed, fetch=(), deadline=None):
        image = feed["x"][..., 0]
        self.seen.append(image.max())
        is_dimmed = image.max() < 200
        white, grey = (170, 110) if is_dimmed else (250, 120)
        sure, unsure = (-9, -9) if is_dimmed and self.faint else (9, -9 if is_dimmed else -0.7)
        logits = np.where(image > white, sure, np.where(image > grey, unsure, -9)).astype(np.float32)
        return dict.fromkeys(fetch, logits[:, None])


def contents(rows):
    """So many entries with a leader and a page number, and a title."""
    page = kernels((40, 20, 200, 24), size=(640, 960))
    for row in range(rows):
        y = 100 + 50 * row
        page[y : y + 24, 40:900] = 128
        page[y : y + 24, 40:180] = page[y : y + 24, 860:900] = 255
    return page


def test_entries_and_page_numbers_beside_leaders_are_found():
    """With its leader, an entry scores too little for a box."""
    model = Contents()
    assert len(detection.Detector(model, Settings()).detect(contents(6)).quads) == 1 + 2 * 6
    assert len(model.seen) == 2


def test_few_strips_that_may_be_text_are_no_leaders():
    model = Contents()
    assert len(detection.Detector(model, Settings()).detect(contents(2)).quads) == 1
    assert len(model.seen) == 1


def test_a_look_at_the_dimmed_picture_that_finds_less_does_not_count():
    for model, most in ((Contents(faint=True), 3000), (Contents(), 12)):
        once = Settings(det_enlarge=1, det_max_boxes=most)
        assert len(detection.Detector(model, once).detect(contents(6)).quads) == 1
        assert len(model.seen) == 2


class Shortsighted(MapPredictor):
    """A det model that half believes lines to be text until it sees them large enough."""

    def predict(self, feed, fetch=(), deadline=None):
        image = feed["x"]
        self.seen.append(image.shape)
        text = 9 if image.shape[2] > 1200 else -0.7
        logits = np.where(image[:, None, :, :, 0] > 127, text, -9).astype(np.float32)
        return dict.fromkeys(fetch, logits)


def test_where_det_doubts_several_lines_it_looks_again_at_half_as_large_again():
    def found(rows, size, **settings):
        image = kernels(*[(100, 100 + 80 * row, 700, 24) for row in range(rows)], size=size)
        model = Shortsighted()
        boxes = detection.Detector(model, Settings(det_small_text=0, **settings)).detect(image).quads
        return [shape[1:3] for shape in model.seen], len(boxes)

    assert found(4, SHEET) == ([(640, 960), (640, 960), (960, 1440)], 4), "dimmed, it is no better"
    assert found(2, SHEET) == ([(640, 960)], 0)
    assert found(4, (640, 960), det_enlarge=1) == ([(640, 960), (640, 960)], 0), "there is nothing more to see"


def test_specks_and_faint_boxes_are_dropped():
    for side in (2, 3):
        speck = kernels((10, 10, side, side), size=(640, 960))  # det sees it in this size
        assert len(detect(speck).quads) == 0
    image = kernels((100, 100, 200, 24))
    image[100:124:2, 100:300] = 0  # stripes: half of the kernel's pixels are not text
    assert len(detect(image).quads) == 0


def test_boxes_of_text_at_the_edges_end_there():
    quads = detect(kernels((0, 100, 200, 24), (440, 200, 200, 24), (200, 0, 200, 24), (200, 376, 200, 24))).quads
    assert len(quads) == 4
    assert quads.min(axis=(0, 1)).tolist() == [0, 0]
    assert quads.max(axis=(0, 1)).tolist() == [639, 399]


def test_more_boxes_than_accepted_are_refused_not_dropped():
    image = kernels(*[(40, y, 200, 12) for y in range(10, 390, 40)])
    assert len(detect(image, det_max_boxes=10).quads) == 10
    with pytest.raises(LimitExceeded, match=r"more than 9 pieces of text.*det_max_boxes"):
        detect(image, det_max_boxes=9)


def test_requests_do_not_read_each_others_sizes():
    """Quirk of the original: sizes kept on the service let concurrent requests scale with each other's."""

    class Interrupted(MapPredictor):
        def predict(self, feed, fetch=(), deadline=None):
            if not self.seen:
                self.seen.append("another request")
                detector.detect(np.zeros((2000, 100, 3), np.uint8))
            return super().predict(feed, fetch, deadline)

    image = kernels((100, 50, 300, 40))
    alone = detect(image).quads
    detector = detection.Detector(Interrupted(), Settings())
    np.testing.assert_array_equal(detector.detect(image).quads, alone)


@pytest.mark.parametrize(
    "answer",
    [np.zeros((1, 1, 32, 32), np.float32), np.zeros((1, 400, 640), np.float32), np.zeros((1, 1, 416, 640)),
     np.full((1, 1, 416, 640), np.nan, np.float32)],
    ids=["another size", "too few dimensions", "another type", "no numbers"],
)  # fmt: skip
def test_what_is_no_map_is_the_models_fault(answer):
    class Wrong(MapPredictor):
        def predict(self, feed, fetch=(), deadline=None):
            return dict.fromkeys(fetch, answer)

    with pytest.raises(BadUpstream):
        detection.Detector(Wrong(), Settings()).detect(kernels())
