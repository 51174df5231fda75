"""Proposals against a search over all windows, and by hand."""

import random
from statistics import mean

import pytest

from m1lite.toolbox.proposals import event_threshold, relevant_windows, two_group_threshold


def test_the_best_window_against_all_windows():
    rng = random.Random(0)
    for _ in range(200):
        scores = [rng.random() for _ in range(rng.randint(2, 12))]
        threshold = event_threshold(scores)
        sums = {
            (low, high): sum(score - threshold for score in scores[low:high])
            for low in range(len(scores))
            for high in range(low + 1, len(scores) + 1)
        }
        ((window, margin),) = relevant_windows(list(range(len(scores))), scores, 1, end=len(scores))
        assert sums[window] == pytest.approx(max(sums.values()))
        assert margin == pytest.approx(sums[window] / (window[1] - window[0]), abs=1e-6)


def test_the_threshold_against_all_splits():
    rng = random.Random(1)
    for _ in range(100):
        values = [rng.random() for _ in range(rng.randint(2, 10))]

        def spread(limit, values=values):
            low, high = [v for v in values if v < limit], [v for v in values if v >= limit]
            return len(low) * len(high) * (mean(high) - mean(low)) ** 2 if low and high else -1

        assert spread(two_group_threshold(values)) == pytest.approx(max(map(spread, values)))


def test_the_event_is_split_from_scenes_between():
    scores = [0.0] * 4 + [0.5, 0.6] * 4 + [1.0] * 3
    assert 0 < two_group_threshold(scores) < 0.5
    assert event_threshold(scores) == 0.8
    noise = [0.0] * 4 + [0.95, 1.0, 0.9] * 4  # one event over most of the time stays whole
    assert event_threshold(noise) == two_group_threshold(noise) == 0.45
    assert event_threshold([0.0, 1.0, 1.0, 1.0]) == 0.5


def test_further_windows_do_not_overlap_and_come_by_their_sum():
    scores = [0.1, 0.8, 0.1, 0.1, 0.9, 0.9, 0.1, 0.7]
    found = relevant_windows([10 + n for n in range(8)], scores, 5, end=18)
    assert [window for window, _ in found] == [(14, 16), (11, 12), (17, 18)]


def test_nothing_stands_out():
    assert relevant_windows([0, 1], [0.5, 0.5], 1, end=2) == []
    assert relevant_windows([], [], 1, end=2) == []


def test_arguments():
    with pytest.raises(ValueError, match="`relevance` needs one number for each of 2 seconds"):
        relevant_windows([0, 1], [0.5], 1, end=2)
    with pytest.raises(ValueError, match="`seconds` must be ascending and `end` after the last"):
        relevant_windows([0, 1], [0.5, 0.2], 1, end=1)
