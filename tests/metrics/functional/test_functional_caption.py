"""Event scores against loops over lists of flags."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import event_scores

FLAGS = st.lists(st.booleans(), max_size=6)


def share(flags):
    return sum(flags) / len(flags) if flags else 1.0


def padded(rows):
    width = max(map(len, rows))
    flags = torch.tensor([row + [True] * (width - len(row)) for row in rows], dtype=torch.bool)
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], dtype=torch.bool)
    return flags, mask


@given(st.lists(st.tuples(FLAGS, FLAGS), min_size=1, max_size=8))
def test_equals_the_loop_whatever_stands_in_the_padding(pairs):
    (told, told_mask), (true, true_mask) = (padded(list(side)) for side in zip(*pairs, strict=True))
    found = event_scores(told, true, predicted_mask=told_mask, target_mask=true_mask)
    for row, (predicted, target) in enumerate(pairs):
        precision, recall = share(predicted), share(target)
        assert found.precision[row].item() == pytest.approx(precision)
        assert found.recall[row].item() == pytest.approx(recall)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert found.f1[row].item() == pytest.approx(f1)


def test_a_side_without_events():
    nothing, one_missed = torch.zeros(1, 0, dtype=torch.bool), torch.tensor([[False]])
    assert [value.item() for value in event_scores(nothing, nothing)] == [1.0, 1.0, 1.0]
    assert [value.item() for value in event_scores(nothing, one_missed)] == [1.0, 0.0, 0.0]
    assert [value.item() for value in event_scores(one_missed, one_missed)] == [0.0, 0.0, 0.0]


def test_errors_name_the_shape():
    with pytest.raises(ValueError, match=r"`predicted` has shape \(2, 3\) and `target` \(1, 3\)"):
        event_scores(torch.ones(2, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"\(1, 3\) and `target` \(1, 2\)"):
        event_scores(torch.ones(1, 3), torch.ones(1, 3), predicted_mask=torch.ones(1, 2))


def test_flags_may_be_probabilities_and_padding_anything():
    flags = torch.tensor([[0.25, 0.75, float("nan")]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    found = event_scores(flags, flags, predicted_mask=mask, target_mask=mask)
    assert found.recall.tolist() == [0.5]
    assert found.recall.dtype == torch.float64
    assert event_scores(flags.bfloat16()[:, :2], flags[:, :2]).precision.dtype == torch.float32
