from http.client import HTTPMessage

import pytest
import scaling
from harness import measure, staged, web


def test_the_p99_of_few_times_is_the_longest() -> None:
    times = [0.001 * n for n in range(1, 100)]

    assert measure.latency(times) == {"p50_ms": 50.0, "p99_ms": 99.0}
    assert measure.latency([*times, 0.1])["p99_ms"] == 99.0


def test_growth_is_told_part_by_part() -> None:
    sizes = {1: 100, 10: 105, 100: 330, 1000: 3300, 10_000: 33_000}
    series = {"x": "lines", "points": [{"x": x, "ms": ms} for x, ms in sizes.items()]}

    text = scaling.markdown({"lines": series})

    assert "from 1 to 10 lines it hardly changes, 1.05 times for 10 times the lines" in text
    assert "from 10 to 100 lines it grows more slowly than they do, 3.14 times for 10 times the lines" in text
    assert "from 100 to 10000 lines it grows about in proportion, 100 times for 100 times the lines" in text


def test_unlike_models_have_no_growth() -> None:
    points = [{"x": 1, "ms": 1, "family": "a"}, {"x": 2, "ms": 5, "family": "b"}]

    assert "times" not in scaling.markdown({"models": {"x": "megabytes", "points": points}})


def test_times_that_overlap_count_once() -> None:
    spans = [staged.Span("rec", 0, 2), staged.Span("rec", 1, 3), staged.Span("rec", 1, 2), staged.Span("rec", 5, 6)]

    assert staged.covered(spans) == 4


def test_every_look_of_det_is_inference() -> None:
    found = staged.stages(
        [
            staged.Span("det", 1, 4),
            staged.Span("det", 5, 9),
            staged.Span("detect", 0, 11),
            staged.Span("rec", 13, 20),
            staged.Span("rec", 14, 21),
        ],
        0,
        24,
    )

    assert found == {"det_pre": 1, "det_infer": 7, "det_post": 3, "rec_pre": 2, "rec_infer": 8, "rec_post": 3}


def test_a_page_that_is_turned_is_detected_twice() -> None:
    spans = [("det", 1, 2), ("detect", 0.5, 2.5), ("det", 3, 5), ("detect", 2.5, 5.5), ("rec", 6, 7)]
    found = staged.stages([staged.Span(*span) for span in spans], 0, 8)

    assert found == {"det_pre": 1, "det_infer": 3, "det_post": 1.5, "rec_pre": 0.5, "rec_infer": 1, "rec_post": 1}


def test_server_timing_is_read_in_seconds() -> None:
    headers = HTTPMessage()
    headers["Server-Timing"] = 'det;dur=31.5, rec;desc="lines";dur=40, miss'

    assert web.server_timing(headers["Server-Timing"]) == pytest.approx({"det": 0.0315, "rec": 0.04})
    assert web.server_timing(None) == {}
