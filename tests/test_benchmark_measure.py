from http.client import HTTPMessage

import pytest
from harness import measure, staged, web


@pytest.mark.parametrize(("exponent", "words"), [(0.5, "more slowly than"), (1.0, "in proportion to"), (2.0, "faster")])
def test_the_law_behind_exact_costs_is_found(exponent: float, words: str) -> None:
    x = [1, 2, 5, 10, 20, 50, 100, 500]
    law = measure.growth(x, [40 + 3 * n**exponent for n in x])

    assert law.exponent == pytest.approx(exponent, abs=0.051)
    assert law.fixed == pytest.approx(40, rel=0.05)
    assert words in law.words("number of lines")


def test_a_cost_that_falls_is_told_apart_from_one_that_grows() -> None:
    cores = [1, 2, 4, 8, 16]
    law = measure.growth(cores, [20 + 300 / n for n in cores])

    assert law.exponent == pytest.approx(-1, abs=0.051)
    assert law.fixed == pytest.approx(20, rel=0.1)
    assert "falls in inverse proportion to the number of cores" in law.words("number of cores")


def test_a_cost_that_stays_the_same_has_no_exponent() -> None:
    law = measure.growth([1, 10, 100], [50.0, 52.0, 49.0])

    assert law.exponent is None
    assert "hardly depends" in law.words("megapixels")


def test_times_that_overlap_count_once() -> None:
    spans = [staged.Span("rec", 0, 2), staged.Span("rec", 1, 3), staged.Span("rec", 1, 2), staged.Span("rec", 5, 6)]

    assert staged.covered(spans) == 4


def test_server_timing_is_read_in_seconds() -> None:
    headers = HTTPMessage()
    headers["Server-Timing"] = 'det;dur=31.5, rec;desc="lines";dur=40, miss'

    assert web.server_timing(headers["Server-Timing"]) == pytest.approx({"det": 0.0315, "rec": 0.04})
    assert web.server_timing(None) == {}
