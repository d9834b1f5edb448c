"""Columns of running text are read one after another; tables, forms and receipts line by line."""

import cv2
import numpy as np
import pytest

from ocr_serving import geometry

HEIGHT, PITCH = 20, 26
PAGE = 1200


def boxes(cells):
    """Quads of (left, top, width) each, HEIGHT high."""
    left, top, width = np.array(cells, np.float32).T
    x, y = np.stack([left, left + width, left + width, left]), np.stack([top, top, top + HEIGHT, top + HEIGHT])
    return np.stack([x, y], axis=-1).transpose(1, 0, 2)


def column(left, width, top, count, seed):
    """Lines of paragraphs that fill their width more or less; the first of a paragraph is indented, the last short."""
    random = np.random.default_rng(seed)
    paragraph = random.integers(3, 8)
    lines = []
    for i in range(count):
        indent = 30 if i % paragraph == 0 else 0
        share = random.uniform(0.2, 0.7) if i % paragraph == paragraph - 1 else random.uniform(0.88, 1)
        lines.append((left + indent, top + PITCH * i, width * share - indent))
    return lines


def paper(columns, gutter=24, shift=0):
    """A title, columns, and the number of the page; in reading order."""
    width = (PAGE - 100 - gutter * (columns - 1)) / columns
    cells = [(300, 20, 600)]
    for i in range(columns):
        cells += column(50 + (width + gutter) * i, width, 100 + shift * i, 30 - 4 * i, i)
    return boxes([*cells, (590, 1000, 20)])


def table(*widths, rows=16, pitch=40):
    """Rows of cells of these (least, most) widths, below a head."""
    random = np.random.default_rng(1)
    lefts = 50 + np.cumsum([0, *(most + 24 for _, most in widths[:-1])])
    cells = [(left, 20, 60) for left in lefts]
    for i in range(rows):
        cells += [(left, 60 + pitch * i, random.uniform(*width)) for left, width in zip(lefts, widths, strict=True)]
    return boxes(cells)


def tilted(quads, degrees):
    return cv2.transform(quads, cv2.getRotationMatrix2D((PAGE / 2, 500), degrees, 1)).astype(np.float32)


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("shift", [0, 9], ids=["lines level", "lines askew"])
@pytest.mark.parametrize("degrees", [0, 1.5])
def test_running_text_is_read_column_by_column(columns, shift, degrees):
    quads = tilted(paper(columns, shift=shift), degrees)
    np.testing.assert_array_equal(geometry.reading_order(quads), np.arange(len(quads)))


def test_text_across_the_page_parts_the_columns_above_it_from_those_below():
    left, right = column(50, 540, 20, 8, 1), column(614, 540, 20, 8, 2)
    below = [(x, y + 300, width) for x, y, width in (*left, *right)]
    quads = boxes([*left, *right, (50, 260, 1100), *below])
    np.testing.assert_array_equal(geometry.reading_order(quads), np.arange(len(quads)))


def two_columns(count, **first):
    """Two columns of running text whose first lines are of these widths, if they are given."""
    cells = []
    for left, seed in ((50, 1), (614, 2)):
        lines = column(left, 540, 20, count, seed)
        for i, width in enumerate(first.get("widths", ())):
            lines[i] = (left, lines[i][1], width)
        cells += lines
    return boxes(cells)


def by_line(quads):
    """Whether boxes are read line by line."""
    top = quads[geometry.reading_order(quads), 0, 1]
    return bool((np.diff(top) >= 0).all())


def test_columns_may_begin_with_a_short_line():
    quads = two_columns(12, widths=[150])
    np.testing.assert_array_equal(geometry.reading_order(quads), np.arange(len(quads)))


def test_lines_above_columns_that_are_none_are_passed_over():
    quads = two_columns(12, widths=[210] * 4)
    order = geometry.reading_order(quads).tolist()
    assert order[:2] == [0, 12]
    assert order[-8:] == [*range(16, 24)]


def test_columns_are_alike_in_width():
    cells = [cell for left, width, seed in ((50, 220, 1), (294, 900, 2)) for cell in column(left, width, 20, 16, seed)]
    assert by_line(boxes(cells))


@pytest.mark.parametrize(("pitch", "is_table"), [(PITCH, False), (2 * HEIGHT, True)])
def test_lines_of_a_column_stand_close(pitch, is_table):
    quads = two_columns(16)
    quads[:, :, 1] += ((pitch - PITCH) * np.round((quads[:, 0, 1] - 20) / PITCH))[:, None]
    assert by_line(quads) == is_table


WORDS, ADDRESS, NUMBER, TIME = (60, 400), (300, 340), (420, 420), (190, 190)


@pytest.mark.parametrize("pitch", [27, 32, 44])
@pytest.mark.parametrize(
    "widths",
    [
        [(20, 30), WORDS, (50, 110)],
        [WORDS, WORDS],
        [WORDS, WORDS, WORDS],
        [TIME, TIME, TIME, TIME],
        [TIME, NUMBER],
        [NUMBER, NUMBER],
        [ADDRESS, ADDRESS, ADDRESS],
        [ADDRESS, (40, 60)],
        [(80, 90), NUMBER, (80, 90), ADDRESS],
    ],
    ids=str,
)
def test_tables_and_forms_are_read_line_by_line(widths, pitch):
    quads = table(*widths, pitch=pitch)
    np.testing.assert_array_equal(geometry.reading_order(quads), np.arange(len(quads)))


def test_a_receipt_is_read_line_by_line():
    names = column(30, 300, 20, 20, 3)
    quads = boxes([cell for name in names for cell in (name, (420, name[1], 60))])
    np.testing.assert_array_equal(geometry.reading_order(quads), np.arange(len(quads)))


@pytest.mark.parametrize("pitch", [24, 27, 32])
@pytest.mark.parametrize("last", [(50, 60), (350, 60)], ids=["a total", "a gap"])
def test_numbers_that_fill_their_cells_are_read_line_by_line_whatever_ends_them(last, pitch):
    rows = [cell for i in range(14) for cell in ((50, 60 + pitch * i, 220), (350, 60 + pitch * i, 240))]
    foot = (last[0], 60 + pitch * 14, last[1])
    quads = boxes([(50, 20, 60), (350, 20, 60), *rows, foot])
    np.testing.assert_array_equal(geometry.reading_order(quads), np.arange(len(quads)))


@pytest.mark.parametrize("seed", range(8))
def test_sentences_beside_their_translation_are_read_line_by_line(seed):
    random = np.random.default_rng(seed)
    rows = [(left, 20 + 27 * i, 340 * random.uniform(0.66, 1)) for i in range(14) for left in (50, 450)]
    quads = boxes(rows)
    np.testing.assert_array_equal(geometry.reading_order(quads), np.arange(len(quads)))
