"""TemporalIoU: its protocols, missing answers and errors. What all metrics share is in test_citizens.py."""

import json
from pathlib import Path

import pytest
import torch

from m1lite.metrics import TemporalIoU
from m1lite.metrics.functional import temporal_iou

GOLDEN = json.loads((Path(__file__).parents[1] / "golden_cases" / "temporal_iou.json").read_text())


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("row", GOLDEN["iou_sets"])
def test_recall_counts_scores_at_the_threshold(row):
    ious = torch.tensor(row["ious"], dtype=torch.float64)
    metric = TemporalIoU()
    spans = torch.stack([torch.zeros_like(ious), ious], -1)
    metric.update(spans, torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand_as(spans))
    found = values(metric)
    assert 100 * found["miou"] == pytest.approx(row["percent"]["mIoU"])
    for threshold in (0.3, 0.5, 0.7):
        assert 100 * found[f"recall@{threshold}"] == pytest.approx(row["percent"][f"R1@{threshold}"])


@pytest.mark.parametrize(("strict", "expected"), [(False, 1.0), (True, 0.0)])
def test_a_score_at_the_threshold_in_float32_and_float64(strict, expected):
    for dtype in (torch.float32, torch.float64):
        metric = TemporalIoU(thresholds=[0.7], strict=strict)
        metric.update(torch.tensor([[0.0, 7.0]], dtype=dtype), torch.tensor([[0.0, 10.0]], dtype=dtype))
        assert values(metric)["recall@0.7"] == expected


def test_no_answer_scores_zero_or_leaves_the_mean():
    target = torch.tensor([[0.0, 5.0], [2.0, 3.0], [1.0, 4.0]])
    as_list = [[0.0, 4.0], None, torch.tensor([4.0, 1.0])]
    as_tensor = torch.tensor([[0.0, 4.0], [float("nan"), float("nan")], [4.0, 1.0]])
    for prediction in (as_list, as_tensor):
        zero, skip = TemporalIoU(), TemporalIoU(missing="skip")
        for metric in (zero, skip):
            metric.update(prediction, target)
            assert metric.score(prediction, target).tolist() == pytest.approx([0.8, 0.0, 0.0])
        assert values(zero)["miou"] == pytest.approx(0.8 / 3)
        assert values(skip) == pytest.approx({"miou": 0.4, "recall@0.3": 0.5, "recall@0.5": 0.5, "recall@0.7": 0.5})


def test_all_answers_missing_and_skipped_is_nan_with_a_warning():
    metric = TemporalIoU(missing="skip")
    metric.update([None], torch.tensor([[0.0, 5.0]]))
    with pytest.warns(UserWarning, match="`TemporalIoU` saw no samples"):
        assert all(value != value for value in values(metric).values())


def test_half_precision_is_cast_up():
    metric = TemporalIoU()
    spans = (torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(0)) * 20).sort(-1).values.bfloat16()
    metric.update(spans[0], spans[1])
    assert values(metric)["miou"] == pytest.approx(temporal_iou(spans[0].float(), spans[1].float()).mean().item())


def test_unchecked_targets_score_zero():
    metric = TemporalIoU(validate_args=False)
    metric.update(torch.tensor([[0.0, 1.0]] * 2), torch.tensor([[0.0, float("nan")], [1.0, 0.0]]))
    assert values(metric)["miou"] == 0.0


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`thresholds` holds 1\.5"):
        TemporalIoU(thresholds=[0.3, 1.5])
    with pytest.raises(ValueError, match="`missing` is 'drop'; it is 'zero'"):
        TemporalIoU(missing="drop")
    metric = TemporalIoU()
    for broken in ([5.0, 3.0], [0.0, float("nan")], [0.0, float("inf")]):
        with pytest.raises(ValueError, match=rf"`target\[1\]` is \[{broken[0]}, {broken[1]}\]"):
            metric.update(torch.zeros(2, 2), torch.tensor([[0.0, 1.0], broken]))
    with pytest.raises(ValueError, match=r"`target` has shape \(2, 3\)"):
        metric.update(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"`prediction\[1\]` has shape \(3,\); it must be \(2,\)"):
        metric.update([None, [0.0, 1.0, 2.0]], torch.ones(2, 2))
    with pytest.raises(ValueError, match="`prediction` holds 1 answers for 2 targets"):
        metric.update([None], torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"`prediction` has shape \(1, 2\) and `target` \(2, 2\)"):
        metric.update(torch.ones(1, 2), torch.ones(2, 2))
