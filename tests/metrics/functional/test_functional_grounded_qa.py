"""Grounded answers against plain comparison, and the best of several true spans against a loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import best_overlap, grounded_answer_score, temporal_iop, temporal_iou

QUARTERS = st.integers(0, 40).map(lambda n: n / 4)
SPANS = st.tuples(QUARTERS, QUARTERS)
NAN = (math.nan, math.nan)


def iou(span, true):
    inter = max(0.0, min(span[1], true[1]) - max(span[0], true[0]))
    hull = max(span[1], true[1]) - min(span[0], true[0])
    return inter / hull if hull > 0 else 0.0


def iop(span, true):
    inter = max(0.0, min(span[1], true[1]) - max(span[0], true[0]))
    return inter / (span[1] - span[0]) if span[1] > span[0] else 0.0


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, math.nan]), st.sampled_from([0.0, 1.0, math.nan]))),
    st.sampled_from([0.25, 0.5]),
    st.booleans(),
)
def test_grounded_answer_score_equals_plain_comparison(pairs, threshold, strict):
    overlap, right = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
    expected = [float(flag == 1 and (share > threshold if strict else share >= threshold)) for share, flag in pairs]
    assert grounded_answer_score(overlap, right, threshold=threshold, strict=strict).tolist() == expected


@given(st.lists(st.tuples(SPANS, st.lists(SPANS.map(sorted).map(tuple), max_size=4)), min_size=1, max_size=8))
def test_best_overlap_equals_the_loop(questions):
    most = max(len(trues) for _, trues in questions)
    spans = torch.tensor([span for span, _ in questions], dtype=torch.float64)
    padded = [trues + [NAN] * (most - len(trues)) for _, trues in questions]
    target = torch.tensor(padded, dtype=torch.float64).reshape(len(questions), most, 2)
    for overlap, loop in ((temporal_iou, iou), (temporal_iop, iop)):
        found = best_overlap(spans, target, overlap=overlap)
        assert found.tolist() == pytest.approx(
            [max((loop(span, true) for true in trues), default=0.0) for span, trues in questions]
        )


def test_the_threshold_is_compared_in_the_dtype_of_the_overlap():
    assert grounded_answer_score(torch.tensor(0.7), torch.tensor(1), threshold=0.7).item() == 1.0
    assert grounded_answer_score(torch.tensor(0.7), torch.tensor(True), threshold=0.7, strict=True).item() == 0.0
    half = grounded_answer_score(torch.tensor([0.5, 0.25], dtype=torch.bfloat16), torch.tensor([1, 1]))
    assert half.dtype == torch.float32
    assert half.tolist() == [1.0, 0.0]


def test_no_answer_and_negative_overlaps_are_zero():
    target = torch.tensor([[2.0, 4.0]])
    assert best_overlap(torch.tensor(NAN), target).item() == 0.0
    assert best_overlap(torch.tensor([8.0, 9.0]), target, overlap=lambda p, t: temporal_iou(p, t) - 1).item() == 0.0
    assert best_overlap(torch.ones(3, 5, 2), torch.ones(3, 5, 0, 2)).shape == (3, 5)


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r"`prediction` has shape \(2,\) and `target` \(3,\)"):
        grounded_answer_score(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match=r"`target` has shape \(4, 3\); its last dimension must hold 2"):
        best_overlap(torch.ones(2), torch.ones(4, 3))
