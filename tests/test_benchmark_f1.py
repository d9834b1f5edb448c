import pytest
from f1 import page_f1


def test_words_are_a_bag_and_case_and_marks_do_not_count() -> None:
    assert page_f1(["TOTAL: 86.50", "Thank you"], ["thank", "YOU", "total 86.50!"]) == 1.0


def test_missed_and_false_words_both_cost() -> None:
    # truth: a b c, found: a b x y -> 2 hits of 3 + 4
    assert page_f1(["a b c"], ["a b", "x y"]) == pytest.approx(2 * 2 / 7)


def test_a_word_that_comes_twice_is_found_twice() -> None:
    assert page_f1(["no no"], ["no"]) == pytest.approx(2 * 1 / 3)


def test_chinese_pages_are_compared_by_character_without_spaces_and_width_forms() -> None:
    assert page_f1(["东湖公园 Ａ1"], ["东 湖", "公园a1"]) == 1.0
    assert page_f1(["东湖公园"], ["东湖"]) == pytest.approx(2 * 2 / 6)


def test_lines_that_nobody_can_read_are_not_asked_for_but_count_when_found() -> None:
    assert page_f1(["东湖公园", "###"], ["东湖公园"]) == 1.0
    assert page_f1(["exit", "###"], ["exit", "smudge"]) == pytest.approx(2 * 1 / 3)


def test_a_page_without_text_is_right_only_when_nothing_is_found() -> None:
    assert page_f1([], []) == 1.0
    assert page_f1([], ["text"]) == 0.0
    assert page_f1(["text"], []) == 0.0
