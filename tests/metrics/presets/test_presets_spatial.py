"""VSI-Bench as officially scored: what is read, what is graded, and the mean over tasks, by hand."""

import math

import pytest
import torch

from m1lite.metrics.presets import find_preset
from m1lite.metrics.presets.spatial import first_word, read_vsibench, vsibench_number, vsibench_relative_accuracy


def item(question_type, ground_truth, response):
    return {"question_type": question_type, "ground_truth": ground_truth, "response": response}


@pytest.mark.parametrize(
    ("response", "word"), [("A. chair", "A"), ("3.0..", "3.0"), (" A", ""), ("", ""), ("A\nB", "A\nB"), ("(A)", "(A)")]
)
def test_first_word(response, word):
    assert first_word(response) == word


def test_numbers_are_what_python_takes_for_a_float():
    assert [vsibench_number(text) for text in ("3", "+3", "3e0", "1_0", "-inf")] == [3.0, 3.0, 3.0, 10.0, -math.inf]
    assert [vsibench_number(text) for text in ("", "3m", "1,5", "three", "\ud800")] == [None] * 5


def test_relative_accuracy_at_the_edges_of_the_official_code():
    assert vsibench_relative_accuracy(-100.0, -2.0) == 1.0  # the error is divided by a negative number
    assert vsibench_relative_accuracy(math.nan, -2.0) == 0.0
    assert vsibench_relative_accuracy(math.inf, 2.0) == vsibench_relative_accuracy(2.0, math.inf) == 0.0
    assert vsibench_relative_accuracy(None, 2.0) == vsibench_relative_accuracy(2.0, None) == 0.0
    assert [vsibench_relative_accuracy(value, 0.0) for value in (0.0, 0.1)] == [1.0, 0.0]


def test_the_report_is_the_mean_over_tasks_in_percent():
    items = [
        item("object_counting", "4", "4"),
        item("object_counting", "4", "many"),
        item("route_planning", "B", "b."),
        item("object_rel_direction_easy", "A", "A"),
        item("object_rel_direction_medium", "A", "B"),
        item("object_rel_direction_medium", "A", "A"),
        item("object_rel_direction_hard", "A", "(A)"),
    ]
    assert find_preset("vsibench").score(items) == {
        "overall": pytest.approx(100 * (0.5 + 0.5 + 1.0) / 3),
        "object_counting_MRA:.5:.95:.05": 50.0,
        "object_rel_direction_accuracy": 50.0,
        "route_planning_accuracy": 100.0,
    }


def test_directions_without_the_easy_level_count_but_are_not_shown():
    items = [item("object_rel_direction_hard", "A", "A"), item("object_rel_direction_medium", "A", "B")]
    assert find_preset("vsibench").score(items) == {"overall": 50.0}
    items = [item("object_rel_direction_easy", "A", "A"), item("object_rel_direction_medium", "A", "B")]
    assert find_preset("vsibench").score(items) == {"overall": 50.0, "object_rel_direction_accuracy": 50.0}


def test_no_items_and_an_unknown_type():
    with pytest.warns(UserWarning, match="`QuestionTypeScores` saw no samples"):
        assert math.isnan(find_preset("vsibench").score([])["overall"])
    with pytest.raises(ValueError, match="`question_type` is 'object_color'"):
        read_vsibench(item("object_color", "A", "A"))


def test_parts_of_a_split_add_up():
    preset = find_preset("vsibench")
    whole, parts = preset.metric(), [preset.metric(), preset.metric()]
    for place, (kind, answer) in enumerate(
        [("object_counting", "5"), ("route_planning", "5"), ("object_counting", "4")]
    ):
        arguments = preset.read(item(kind, "5", answer))
        whole.update(*arguments)
        parts[place % 2].update(*arguments)
    parts[0].merge_state(parts[1])
    assert {name: value.item() for name, value in parts[0].compute().items()} == {
        name: value.item() for name, value in whole.compute().items()
    }
    assert torch.equal(whole.count, parts[0].count)
