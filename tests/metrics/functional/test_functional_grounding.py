"""Scores of one span against one: official results, loops over tuples, and the properties of an overlap."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import (
    scaled_iou,
    temporal_giou,
    temporal_iop,
    temporal_iou,
    timestamp_aware_iou,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden_cases" / "temporal_iou.json").read_text())
SECONDS = st.integers(0, 400).map(lambda n: n / 4)
SPANS = st.tuples(SECONDS, SECONDS).map(sorted)


def reference(span, true):
    inter = max(0.0, min(span[1], true[1]) - max(span[0], true[0]))
    hull = max(span[1], true[1]) - min(span[0], true[0])
    return inter / hull if hull > 0 else 0.0


@pytest.mark.parametrize("source", ["lmms_eval_charades_iou", "qvh_iou_paired"])
@pytest.mark.parametrize("row", GOLDEN["interval_pairs"], ids=lambda row: row["tag"])
def test_official_values(row, source):
    span, true = ([float(bound) for bound in row[side]] for side in ("pred", "gt"))
    found = temporal_iou(torch.tensor(span, dtype=torch.float64), torch.tensor(true, dtype=torch.float64)).item()
    assert found == pytest.approx(float(row[source]), abs=1e-12, nan_ok=True)


@given(st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=20))
def test_equals_the_loop(pairs):
    spans, trues = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    assert temporal_iou(spans, trues).tolist() == pytest.approx([reference(*pair) for pair in pairs])


@given(SPANS, SPANS, SECONDS)
def test_is_symmetric_bounded_and_blind_to_a_shift(span, true, shift):
    first, second = torch.tensor(span, dtype=torch.float64), torch.tensor(true, dtype=torch.float64)
    iou = temporal_iou(first, second)
    assert 0 <= iou <= 1
    assert iou == temporal_iou(second, first)
    assert temporal_iou(first + shift, second + shift).item() == pytest.approx(iou.item())
    assert (iou == 1) == (span == true and span[0] < span[1])


def test_broadcasts_one_prediction_over_many_targets():
    found = temporal_iou(torch.tensor([0, 4]), torch.tensor([[[0, 4], [2, 6]], [[5, 6], [0, 8]]]))
    assert found.tolist() == [[1.0, pytest.approx(1 / 3)], [0.0, 0.5]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_casts_up(dtype):
    found = temporal_iou(torch.tensor([0, 3], dtype=dtype), torch.tensor([0, 4], dtype=dtype))
    assert found.dtype == torch.float32
    assert found.item() == 0.75


def test_has_a_gradient():
    span = torch.tensor([1.0, 4.0], requires_grad=True)
    temporal_iou(span, torch.tensor([0.0, 10.0])).backward()
    assert span.grad.tolist() == pytest.approx([-0.1, 0.1])


def test_no_samples():
    assert temporal_iou(torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0,)


def test_a_missing_bound_is_nan():
    assert math.isnan(temporal_iou(torch.tensor([float("nan"), 2.0]), torch.tensor([0.0, 2.0])).item())


def test_errors_name_the_shape():
    with pytest.raises(ValueError, match=r"`prediction` has shape \(3,\); its last dimension must hold 2"):
        temporal_iou(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"`target` has shape \(\)"):
        temporal_iou(torch.zeros(2), torch.zeros(()))


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


PAIRS = st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=20)


def lengths(span, true):
    """Length of the overlap, of each span, and of the gap between them."""
    inter = max(0.0, min(span[1], true[1]) - max(span[0], true[0]))
    gap = max(0.0, max(span[0], true[0]) - min(span[1], true[1]))
    return inter, span[1] - span[0], true[1] - true[0], gap


@given(PAIRS)
def test_iop_equals_the_loop(pairs):
    spans, trues = (float64(side) for side in zip(*pairs, strict=True))
    expected, with_points = [], []
    for span, true in pairs:
        inter, length, true_length, _ = lengths(span, true)
        expected.append(inter / length if length else 0.0)
        is_inside = true[0] <= span[0] and span[1] <= true[1]
        with_points.append(expected[-1] if length else float(is_inside and true_length > 0))
    assert temporal_iop(spans, trues).tolist() == pytest.approx(expected)
    assert temporal_iop(spans, trues, point=1.0).tolist() == pytest.approx(with_points)


def test_iop_of_a_reversed_prediction_and_of_nan():
    assert temporal_iop(torch.tensor([8.0, 2.0]), torch.tensor([2.0, 8.0]), point=1.0).item() == 0.0
    assert math.isnan(temporal_iop(torch.tensor([float("nan"), 2.0]), torch.tensor([0.0, 2.0])).item())


@given(PAIRS)
def test_giou_equals_the_loop(pairs):
    spans, trues = (float64(side) for side in zip(*pairs, strict=True))
    expected = []
    for span, true in pairs:
        inter, length, true_length, _ = lengths(span, true)
        union = length + true_length - inter
        hull = max(span[1], true[1]) - min(span[0], true[0])
        expected.append(inter / union - (hull - union) / hull if union else float(-1 if hull else 0))
    assert temporal_giou(spans, trues).tolist() == pytest.approx(expected)


def test_giou_falls_with_the_gap_and_is_worst_when_reversed():
    found = temporal_giou(torch.tensor([[0, 1], [2, 3], [4, 5], [5, 4], [8, 9]]), torch.tensor([5, 6]))
    assert found.tolist() == pytest.approx([-4 / 6, -2 / 4, 0.0, -1.0, -2 / 4])
    assert math.isnan(temporal_giou(torch.tensor([float("nan"), 2.0]), torch.tensor([0.0, 2.0])).item())


@given(PAIRS, st.floats(1, 200))
def test_timestamp_aware_iou_equals_the_loop(pairs, duration):
    spans, trues = (float64(side) for side in zip(*pairs, strict=True))
    expected = [
        reference(span, true) * (1 - abs(span[0] - true[0]) / duration) * (1 - abs(span[1] - true[1]) / duration)
        for span, true in pairs
    ]
    assert timestamp_aware_iou(spans, trues, duration).tolist() == pytest.approx(expected)
    each = torch.full((len(pairs),), duration, dtype=torch.float64)
    assert timestamp_aware_iou(spans, trues, each).tolist() == pytest.approx(expected)


def test_timestamp_aware_iou_past_the_video_is_negative_and_without_overlap_zero():
    true = float64([20.0, 30.0])
    assert timestamp_aware_iou(float64([20.0, 500.0]), true, 30.0).item() == pytest.approx(-0.3055555555555556)
    assert timestamp_aware_iou(float64([0.0, math.inf]), true, 30.0).item() == 0.0


@given(PAIRS)
def test_scaled_iou_equals_the_loop(pairs):
    spans, trues = (float64(side) for side in zip(*pairs, strict=True))
    expected = [min(1.0, max(0.0, (reference(span, true) - 0.1) / (0.6 - 0.1))) for span, true in pairs]
    assert scaled_iou(spans, trues, low=0.1, high=0.6).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("score", [temporal_iop, temporal_giou])
def test_the_others_cast_up_too(score):
    found = score(torch.tensor([0, 3], dtype=torch.bfloat16), torch.tensor([0, 4]))
    assert found.dtype == torch.float32
    with pytest.raises(ValueError, match=r"`prediction` has shape \(3,\)"):
        score(torch.zeros(3), torch.zeros(2))


def test_errors_name_the_number():
    spans = torch.zeros(2)
    with pytest.raises(ValueError, match=r"`duration` is 0\.0"):
        timestamp_aware_iou(spans, spans, 0.0)
    with pytest.raises(ValueError, match=r"`duration` is nan"):
        timestamp_aware_iou(spans, spans, float("nan"))
    with pytest.raises(ValueError, match=r"`low` is 0\.7 and `high` 0\.5"):
        scaled_iou(spans, spans, low=0.7, high=0.5)
    with pytest.raises(ValueError, match=r"`low` is 0\.5 and `high` 1\.5"):
        scaled_iou(spans, spans, low=0.5, high=1.5)
