"""Orders against loops over lists and scipy's tau, with items that are missing, repeated or too many."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import order_score

ORDERS = st.integers(0, 6).flatmap(lambda n: st.permutations(range(n)))


def reference(told, true):
    exact = float(told == true)
    if not true:
        return exact, exact, exact
    step = sum(index < len(told) and told[index] == item for index, item in enumerate(true)) / len(true)
    total, pairs = 0, 0
    for earlier, later in itertools.combinations(true, 2):
        pairs += 1
        if earlier in told and later in told:
            total += 1 if told.index(earlier) < told.index(later) else -1
    return exact, step, total / pairs if pairs else exact


def padded(rows):
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([list(row) + [-1] * (width - len(row)) for row in rows]).reshape(len(rows), width).long()


def found(pairs):
    told, true = zip(*pairs, strict=True)
    return list(zip(*(score.tolist() for score in order_score(padded(told), padded(true))), strict=True))


@given(st.lists(st.tuples(st.lists(st.integers(0, 7), max_size=7), ORDERS), min_size=1, max_size=6))
def test_equals_the_loop(pairs):
    for scores, (told, true) in zip(found(pairs), pairs, strict=True):
        assert scores == pytest.approx(reference(list(told), list(true)))


@given(st.integers(2, 8).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n)))))
def test_tau_is_kendalls_for_permutations(pair):
    stats = pytest.importorskip("scipy.stats")
    told, true = (list(side) for side in pair)
    expected = stats.kendalltau([told.index(item) for item in true], range(len(true))).statistic
    assert found([pair])[0][2] == pytest.approx(expected)


def test_by_hand():
    assert found([([0, 1, 2, 3], [0, 1, 2, 3]), ([3, 2, 1, 0], [0, 1, 2, 3]), ([], [0, 1, 2, 3])]) == [
        (1.0, 1.0, 1.0),
        (0.0, 0.0, -1.0),
        (0.0, 0.0, 0.0),
    ]
    assert found([([0, 1, 2], [0, 1])])[0] == (0.0, 1.0, 1.0)  # one too many is not exact
    assert found([([2], [2]), ([1], [2]), ([], [])]) == [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)]


def test_leading_shapes_and_small_integers():
    told = torch.tensor([[[0, 1], [1, 0]]], dtype=torch.int8)
    scores = order_score(told, torch.tensor([[[0, 1], [0, 1]]]))
    assert scores.exact.tolist() == [[1.0, 0.0]]
    assert scores.kendall_tau.dtype == torch.float32
    assert order_score(torch.zeros(0, 3).long(), torch.zeros(0, 2).long()).exact.shape == (0,)


def test_errors_name_the_value():
    with pytest.raises(TypeError, match=r"`prediction` has dtype torch\.float32"):
        order_score(torch.ones(2), torch.ones(2).long())
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and `target` \(1, 3\)"):
        order_score(torch.ones(2, 3).long(), torch.ones(1, 3).long())
