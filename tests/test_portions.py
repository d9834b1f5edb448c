import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_serving.reading.portions import Batch, batches, portions
from ocr_serving.settings import Settings

widths = st.lists(st.integers(32, 2080), max_size=200)
cores = st.integers(1, 64)


def shared_out(line_widths, threads, most=2000):
    found = batches(line_widths, Settings(), threads)
    return list(portions(found, threads, lambda: most))


@given(widths, cores, st.integers(1, 10000))
def test_each_line_is_read_once_at_its_width(line_widths, threads, most):
    calls = shared_out(line_widths, threads, most)
    read = [(i, batch.width) for portion in calls for batch in portion for i in batch.indices]
    assert sorted(read) == list(enumerate(line_widths))
    assert all(len(portion) == 1 or sum(batch.pixels for batch in portion) <= most for portion in calls)


def test_a_page_takes_few_calls_and_ends_with_small_ones():
    calls = shared_out([250] * 48, 2)
    pixels = [sum(batch.pixels for batch in portion) for portion in calls]
    assert pixels[0] == 2000
    assert pixels == sorted(pixels, reverse=True)
    assert len(pixels) <= 12
    assert pixels[-1] <= 1000


def test_no_portion_but_the_last_is_too_short_for_its_call():
    calls = list(portions([Batch(10, [i]) for i in range(400)], 2, lambda: 1000))
    assert all(sum(batch.pixels for batch in portion) >= 50 for portion in calls[:-1])


@pytest.mark.parametrize("threads", [3, 4, 8])
def test_all_cores_end_at_about_the_same_time(threads):
    busy = [0] * threads
    for portion in portions([Batch(10, [i]) for i in range(400)], threads, lambda: 2000):
        busy[busy.index(min(busy))] += sum(batch.pixels for batch in portion)
    assert max(busy) - min(busy) <= 200


def test_portions_become_smaller_as_soon_as_they_are_to():
    most = [2000]
    found = portions([Batch(1000, [i]) for i in range(40)], 2, lambda: most[0])
    assert len(next(found)) == 2
    most[0] = 1000
    assert [len(portion) for portion in found] == [1] * 38


@pytest.mark.parametrize(
    ("lines", "threads", "calls"),
    [
        ([100] * 4, 4, [100] * 4),
        ([100] * 4, 2, [200] * 2),
        ([208, 128, 80, 48, 32], 2, [256, 240]),
        ([64], 2, [64]),
        ([], 2, []),
    ],
)
def test_few_lines_are_one_portion_a_core(lines, threads, calls):
    """A call costs as much as a short word or two."""
    pixels = [sum(batch.pixels for batch in portion) for portion in shared_out(lines, threads)]
    assert sorted(pixels, reverse=True) == calls
