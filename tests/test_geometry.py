import cv2
import golden
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_serving import geometry
from ocr_serving.compat.box_ops import GetRotateCropImage

crop = GetRotateCropImage()


def quad_at(x: float, y: float, width: float = 50, height: float = 12) -> np.ndarray:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)


@pytest.mark.parametrize("name", ["crop0", "crop1"])
def test_crop_equals_the_genuine_op(name):
    quad = golden.ops()["boxes_sorted"][int(name[-1])]
    ours, genuine = crop(golden.page(), quad), golden.ops()[name]
    assert ours.shape == genuine.shape
    # cv2 5 interpolates with other rounding than the cv2 4.10 behind the golden arrays
    assert np.abs(ours.astype(int) - genuine).max() <= 2


def test_crop_leaves_its_callers_boxes_alone():
    """Quirk of the original: its crop op moved the boxes of its caller."""
    quads = golden.ops()["boxes_sorted"].copy()
    before = quads.copy()
    for quad in quads:
        crop(golden.page(), quad)
    np.testing.assert_array_equal(quads, before)


def test_crop_straightens_a_tilted_text():
    upright = np.full((40, 200, 3), 255, np.uint8)
    cv2.rectangle(upright, (10, 10), (60, 30), (0, 0, 255), -1)
    angle = cv2.getRotationMatrix2D((100, 20), 25, 1)
    angle[:, 2] += (50, 100)
    photo = cv2.warpAffine(upright, angle, (320, 260), borderValue=(255, 255, 255))
    corners = np.array([[0, 0], [199, 0], [199, 39], [0, 39]], np.float32)
    quad = cv2.transform(corners[None], angle)[0].astype(np.float32)
    straight = crop(photo, quad)
    red = (straight[..., 2] > 200) & (straight[..., 0] < 80)
    ys, xs = np.nonzero(red)
    assert abs(xs.min() - 10) <= 2
    assert abs(xs.max() - 60) <= 2
    assert abs(ys.min() - 10) <= 2
    assert abs(ys.max() - 30) <= 2


@pytest.mark.parametrize(("height", "turned"), [(149, False), (151, True)])
def test_high_and_narrow_crops_are_turned_a_quarter_to_the_left(height, turned):
    image = np.zeros((300, 300, 3), np.uint8)
    image[20:40, 20:120] = 255  # the top of the column
    found = crop(image, quad_at(20, 20, 100, height))
    assert (found.shape[1] > found.shape[0]) == turned
    if turned:
        assert found[:, :10].mean() > 250, "what was at the top belongs to the left"


@given(st.lists(st.floats(-20, 620), min_size=8, max_size=8))
def test_crop_of_any_quad_is_a_picture(values):
    image = np.zeros((400, 600, 3), np.uint8)
    quad = np.clip(np.array(values, np.float32).reshape(4, 2), 0, [599, 399]).astype(np.float32)
    found = crop(image, quad)
    assert found.ndim == 3
    assert min(found.shape) >= 1


def test_low_crops_are_cut_out_enlarged():
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    low, high, column, thin = geometry.crops(
        image, np.stack([quad_at(20, 20, 100, 12), quad_at(20, 50, 100, 60), quad_at(150, 50, 12, 100),
                         quad_at(20, 200, 100, 3)]), 48
    )  # fmt: skip
    assert low.shape == (48, 400, 3)
    assert column.shape == (48, 400, 3), "its height after the turn counts"
    assert thin.shape == (24, 800, 3), "at most eight times as high"
    np.testing.assert_array_equal(high, crop(image, quad_at(20, 50, 100, 60)))


BEYOND = {
    "left and top": quad_at(-3, -3),
    "right and bottom": quad_at(53, 31),
    "narrow at the foot": np.array([[10, 20], [60, 20], [60, 40], [40, 40]], np.float32),
}


@pytest.mark.parametrize("where", BEYOND)
def test_a_crop_goes_on_beyond_the_edge_as_the_image_ends_there(where):
    image = np.full((40, 60, 3), 255, np.uint8)
    assert crop(image, BEYOND[where]).min() == 255


@given(st.permutations(range(4)), st.floats(-30, 30))
def test_points_come_out_clockwise_from_top_left(order, degrees):
    corners = cv2.boxPoints(((300, 200), (200, 40), degrees))
    ordered = geometry.order_points(corners[list(order)])
    np.testing.assert_array_equal(ordered, geometry.order_points(corners))
    top_left, top_right, bottom_right, bottom_left = ordered
    assert top_left[0] < top_right[0]
    assert bottom_left[0] < bottom_right[0]
    assert top_left[1] < bottom_left[1]
    assert top_right[1] < bottom_right[1]


# A receipt: names on the left, prices of another size on the right, both on lines 40 pixels apart.
RECEIPT = np.stack(
    [quad_at(x, 40 * line + shift, width, height) for line in range(4) for x, shift, width, height in (
        (20, 0, 200, 24), (300, 11, 90, 16))]
)  # fmt: skip


def turned(quads, degrees, scale):
    turn = cv2.getRotationMatrix2D((200, 100), degrees, scale)
    return cv2.transform(quads, turn).astype(np.float32)


@pytest.mark.parametrize("scale", [0.3, 1, 2, 4])
@pytest.mark.parametrize("degrees", [-12, -3, 0, 3, 12])
@pytest.mark.parametrize("seed", [0, 1])
def test_reading_order_depends_on_neither_size_nor_tilt(scale, degrees, seed):
    shuffled = np.random.default_rng(seed).permutation(len(RECEIPT))
    quads = turned(RECEIPT, degrees, scale)[shuffled]
    assert shuffled[geometry.reading_order(quads)].tolist() == [*range(len(RECEIPT))]


def bent(quads):
    """As on the page of an open book: the middle lower by 1/25 of the width."""
    x, y = quads[..., 0], quads[..., 1]
    return np.stack([x, y + 24 * (1 - ((x - 300) / 300) ** 2)], axis=-1)


def from_the_left(quads):
    """As in a photo taken from the side: lines run together in the distance."""
    sheet = np.array([[0, 0], [600, 0], [600, 480], [0, 480]], np.float32)
    seen = np.array([[0, 0], [400, 80], [400, 380], [0, 480]], np.float32)
    return cv2.perspectiveTransform(quads, cv2.getPerspectiveTransform(sheet, seen))


@pytest.mark.parametrize("distorted", [bent, from_the_left])
def test_reading_order_keeps_the_rows_of_a_page_that_is_not_flat(distorted):
    table = np.stack([quad_at(x, y, 110, 16) for y in range(20, 460, 26) for x in (10, 160, 310, 460)])
    shuffled = np.random.default_rng(0).permutation(len(table))
    quads = distorted(table)[shuffled].astype(np.float32)
    assert shuffled[geometry.reading_order(quads)].tolist() == [*range(len(table))]


def test_reading_order_of_boxes_in_one_place():
    assert geometry.reading_order(np.stack([quad_at(5, 5, 60, 10)] * 9)).tolist() == [*range(9)]


def test_reading_order_levels_a_page_by_its_long_boxes():
    """Those of single characters are as broad as high, and say nothing of its tilt."""
    page = np.stack(
        [quad for y in (0, 40, 80) for quad in (quad_at(20, y, 200, 24), *(quad_at(x, y) for x in (300, 340, 380)))]
    )
    quads = turned(page, 12, 1)
    for i, centre in enumerate(quads.mean(axis=1)):
        if i % 4:
            quads[i] = quad_at(*(centre - 8), 16, 16)
    assert geometry.reading_order(quads).tolist() == [*range(12)]


def test_reading_order_keeps_small_print_apart_from_a_tall_heading_beside_it():
    above, heading, below = quad_at(420, 15), quad_at(100, 20, 300, 60), quad_at(0, 73)
    assert geometry.reading_order(np.stack([heading, below, above])).tolist() == [2, 0, 1]


def test_reading_order_sorts_a_line_of_many_boxes():
    """Quirk of the original: one pass of swaps left a line of three or more boxes unsorted."""
    tops = [5, 3, 2, 0]  # a rising line: sorted by their tops, the boxes stand from right to left
    quads = np.stack([quad_at(60 * i, y) for i, y in enumerate(tops)])
    assert geometry.reading_order(quads).tolist() == [0, 1, 2, 3]


def test_reading_order_keeps_lines_apart():
    quads = np.stack([quad_at(300, 0), quad_at(0, 30), quad_at(100, 2), quad_at(200, 31)])
    assert geometry.reading_order(quads).tolist() == [2, 0, 1, 3]
    close = np.stack([quad_at(0, 9, height=10), quad_at(60, 0, height=10)])
    assert geometry.reading_order(close).tolist() == [1, 0], "small print, its lines 9 pixels apart"


def test_reading_order_of_nothing():
    assert geometry.reading_order(np.zeros((0, 4, 2), np.float32)).tolist() == []


def test_crops_of_a_page_full_of_small_text_fit_into_memory():
    """Enlarged to the height that rec wants, 3,000 lines of 2,000 x 8 pixels have 1.7 thousand million."""
    page = np.zeros((300, 2000, 3), np.uint8)
    line = quad_at(0, 100, 2000, 8)
    many = geometry.crops(page, np.repeat(line[None], 3000, axis=0), 48)
    few = geometry.crops(page, np.repeat(line[None], 30, axis=0), 48)
    assert sum(crop.size for crop in many) < 3 * 66e6
    assert {crop.shape[0] for crop in few} == {48}
