"""Temporal IoU against official results, a loop over tuples, and the properties of an overlap."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import temporal_iou

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
