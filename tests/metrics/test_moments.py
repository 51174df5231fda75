"""Metrics of several moments against lists of per-sample scores, and what no answer and empty sets do."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from m1lite.metrics import MomentMeanAveragePrecision, TemporalIoUAUC, TemporalSetIoU
from m1lite.metrics.functional import moment_average_precision, temporal_iou, temporal_set_iou

SETS = [
    [[0.0, 4.0], [3.0, 6.0]],
    [[10.0, 20.0]],
    [],
    [[1.0, 2.0], [5.0, 9.0], [8.0, 12.0]],
]
TRUES = [[[0.0, 6.0]], [[12.0, 30.0], [40.0, 50.0]], [[3.0, 4.0]], [[5.0, 12.0]]]
MOMENTS = [[[*span, 1.0 / (2 + place)] for place, span in enumerate(spans)] for spans in SETS]


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def as_tensors(sets):
    return [torch.tensor(spans, dtype=torch.float64).reshape(-1, len(spans[0]) if spans else 2) for spans in sets]


def fed(metric, prediction, target):
    """Feed a metric in batches of 3 and 1."""
    metric.update(prediction[:3], target[:3])
    metric.update(prediction[3:], target[3:])
    return values(metric)


def test_set_iou_is_the_mean_of_its_scores():
    scores = [temporal_set_iou(*pair).item() for pair in zip(as_tensors(SETS), as_tensors(TRUES), strict=True)]
    found = fed(TemporalSetIoU(), SETS, TRUES)
    assert found["miou"] == pytest.approx(sum(scores) / 4)
    assert TemporalSetIoU().score(SETS, TRUES).tolist() == pytest.approx(scores)
    for threshold in (0.3, 0.5, 0.7):
        assert found[f"recall@{threshold}"] == sum(score >= threshold for score in scores) / 4


def test_set_iou_at_the_threshold_and_strictly_above():
    for strict, expected in ((False, 1.0), (True, 0.0)):
        metric = TemporalSetIoU(thresholds=[0.7], strict=strict)
        metric.update(torch.tensor([[[0.0, 7.0]]]), torch.tensor([[[0.0, 10.0]]]))
        assert values(metric)["recall@0.7"] == expected


def test_an_empty_set_is_an_answer_and_none_is_not():
    prediction, target = [[], None, [], None], [[], [], [[0.0, 1.0]], [[0.0, 1.0]]]
    assert TemporalSetIoU().score(prediction, target).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert TemporalSetIoU(empty=0.0).score(prediction, target).tolist() == [0.0] * 4
    assert fed(TemporalSetIoU(missing="skip"), prediction, target)["miou"] == 0.5


def test_lists_tensors_and_padded_tensors_are_the_same():
    padded = torch.full((4, 3, 2), math.nan, dtype=torch.float64)
    for index, spans in enumerate(as_tensors(SETS)):
        padded[index, : len(spans)] = spans
    trues = as_tensors(TRUES)
    assert fed(TemporalSetIoU(), SETS, TRUES) == fed(TemporalSetIoU(), padded, trues)
    assert fed(TemporalSetIoU(), as_tensors(SETS), TRUES) == fed(TemporalSetIoU(), SETS, trues)


def test_plain_numbers_take_the_dtype_of_the_tensors_and_half_is_cast_up():
    score = TemporalSetIoU().score
    assert score([[[0.0, 7.0]]], torch.tensor([[[0.0, 10.0]]])).dtype == torch.float32
    assert score([[[0.0, 7.0]]], [[[0.0, 10.0]]]).dtype == torch.float64
    assert score([[[0.0, 7.0]]], torch.tensor([[[0.0, 10.0]]]).bfloat16()).dtype == torch.float32


def test_map_and_recall_equal_lists_of_scores():
    thresholds = [0.3, 0.5, 0.6]
    metric = MomentMeanAveragePrecision(thresholds=thresholds)
    found = fed(metric, MOMENTS, TRUES)
    precisions, firsts = [], []
    for moments, true in zip(MOMENTS, as_tensors(TRUES), strict=True):
        rows = torch.tensor(moments, dtype=torch.float64).reshape(-1, 3)
        precision = moment_average_precision(rows[:, :2], rows[:, 2], true, thresholds=thresholds)
        precisions.append(precision.tolist())
        firsts.append(temporal_iou(rows[0, :2], true).max().item() if moments else 0.0)
    for index, threshold in enumerate(thresholds):
        assert found[f"map@{threshold}"] == pytest.approx(sum(row[index] for row in precisions) / 4)
        assert found[f"recall@{threshold}"] == sum(first >= threshold for first in firsts) / 4
    assert found["map"] == pytest.approx(sum(sum(row) / 3 for row in precisions) / 4)
    assert metric.score(MOMENTS, TRUES).tolist() == pytest.approx([sum(row) / 3 for row in precisions])


def test_moments_beyond_the_first_ones_are_not_looked_at():
    moments = [[[0.0, 1.0, 0.1], [5.0, 9.0, 0.9]]]
    trues = [[[5.0, 9.0]]]
    for most, expected in ((1, 0.0), (2, 1.0), (None, 1.0)):
        metric = MomentMeanAveragePrecision(thresholds=[0.5], max_moments=most)
        metric.update(moments, trues)
        assert values(metric) == {"map": expected, "map@0.5": expected, "recall@0.5": 0.0}


def test_length_ranges_keep_only_true_moments_of_that_length():
    metric = MomentMeanAveragePrecision(thresholds=[0.5], length_ranges={"short": (0, 10), "long": (10, math.inf)})
    metric.update(
        [[[0.0, 10.0, 0.9], [20.0, 60.0, 0.8]], [[0.0, 50.0, 0.9]], None],
        [[[0.0, 10.0], [20.0, 60.0]], [[0.0, 50.0]], [[1.0, 2.0]]],
    )
    found = values(metric)
    assert [found["map"], found["recall@0.5"]] == pytest.approx([2 / 3, 2 / 3])
    assert [found["short/map"], found["short/recall@0.5"]] == [0.5, 0.5]
    assert [found["long/map"], found["long/recall@0.5"]] == [0.75, 0.5]


def test_a_range_without_queries_is_nan_with_a_warning():
    metric = MomentMeanAveragePrecision(thresholds=[0.5], length_ranges={"long": (10, 20)})
    metric.update([[[0.0, 1.0, 0.9]]], [[[0.0, 1.0]]])
    with pytest.warns(UserWarning, match="`MomentMeanAveragePrecision` saw no samples for some"):
        found = values(metric)
    assert found["map"] == 1.0
    assert all(math.isnan(found[f"long/{key}"]) for key in ("map", "map@0.5", "recall@0.5"))


def test_queries_without_answer_or_without_true_moments():
    moments, trues = [[[0.0, 1.0, 0.9]], None, [], [[0.0, 1.0, 0.9]]], [[[0.0, 1.0]]] * 3 + [[]]
    for missing, expected in (("zero", 1 / 3), ("skip", 1 / 2)):
        metric = MomentMeanAveragePrecision(thresholds=[0.5], missing=missing)
        found = fed(metric, moments, trues)
        assert found == pytest.approx({"map": expected, "map@0.5": expected, "recall@0.5": expected})
        assert metric.score(moments, trues).tolist() == pytest.approx([1.0, 0.0, 0.0, math.nan], nan_ok=True)


def area(scores, *, strict, steps=101):
    """Trapezoids under the share of scores that reach a threshold."""
    heights = []
    for step in range(steps):
        threshold = step * (1 / (steps - 1))
        heights.append(sum(s > threshold if strict else s >= threshold for s in scores) / len(scores))
    return sum((low + high) / 2 / (steps - 1) for low, high in pairwise(heights))


@pytest.mark.parametrize("strict", [False, True])
def test_areas_equal_trapezoids_over_lists_of_scores(strict):
    metric = TemporalIoUAUC(strict=strict)
    found = fed(metric, SETS, TRUES)
    ious, precisions, recalls = metric.score(SETS, TRUES).T.tolist()
    assert ious == pytest.approx(TemporalSetIoU().score(SETS, TRUES).tolist())
    assert found["iou_auc"] == pytest.approx(area(ious, strict=strict))
    assert found["precision_auc"] == pytest.approx(area(precisions, strict=False))
    assert found["recall_auc"] == pytest.approx(area(recalls, strict=False))


def test_a_fine_area_is_the_mean():
    found = fed(TemporalIoUAUC(num_thresholds=10_001), SETS, TRUES)
    assert found["iou_auc"] == pytest.approx(fed(TemporalSetIoU(), SETS, TRUES)["miou"], abs=1e-4)


def leave_out_precision(prediction, target):
    ones = torch.ones(len(prediction))
    return ones, torch.full_like(ones, math.nan), ones / 2


def test_scores_of_nan_leave_their_area():
    metric = TemporalIoUAUC(overlap=leave_out_precision, num_thresholds=3)
    metric.update([[], None], [[], []])
    assert values(metric) == {"iou_auc": 0.625, "precision_auc": 0.25, "recall_auc": 0.5}
    skip = TemporalIoUAUC(overlap=leave_out_precision, num_thresholds=3, missing="skip")
    skip.update([[], None], [[], []])
    with pytest.warns(UserWarning, match="saw no samples for some of its values"):
        found = values(skip)
    assert found == pytest.approx({"iou_auc": 1.0, "precision_auc": math.nan, "recall_auc": 0.75}, nan_ok=True)


MAKERS = [TemporalSetIoU, TemporalIoUAUC, MomentMeanAveragePrecision]


@pytest.mark.parametrize("make", MAKERS)
def test_errors_name_the_value(make):
    width = 3 if make is MomentMeanAveragePrecision else 2
    update = make().update
    one = [[0.5] * width]
    with pytest.raises(ValueError, match=r"`target\[1\]\[0\]` is \[5\.0, 3\.0\]; a span needs finite"):
        update([None, one], [[[0.0, 1.0]], [[5.0, 3.0]]])
    with pytest.raises(ValueError, match=r"`target\[0\]\[1\]` is \[0\.0, nan\]"):
        update([None], [[[0.0, 1.0], [0.0, math.nan]]])
    with pytest.raises(ValueError, match=rf"`prediction\[1\]` has shape \(1, 5\); it must be \(rows, {width}\)"):
        update([None, [[1.0] * 5]], [[], []])
    with pytest.raises(ValueError, match=r"`target\[0\]` has shape \(2,\); it must be \(rows, 2\)"):
        update([None], [[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"`target\[1\]` is None"):
        update([None, None], [[], None])
    with pytest.raises(ValueError, match="`prediction` holds 1 answers for 2 targets"):
        update([None], [[], []])
    with pytest.raises(ValueError, match=rf"`prediction` has shape \(2, 4, 7\); it must be \(N, rows, {width}\)"):
        update(torch.zeros(2, 4, 7), [[], []])
    with pytest.raises(ValueError, match="`missing` is 'drop'"):
        make(missing="drop")


def test_errors_of_constructors():
    with pytest.raises(ValueError, match=r"`thresholds` holds 0\.0"):
        TemporalSetIoU(thresholds=[0.0])
    with pytest.raises(ValueError, match="`max_moments` is 0"):
        MomentMeanAveragePrecision(max_moments=0)
    with pytest.raises(ValueError, match="`num_thresholds` is 1"):
        TemporalIoUAUC(num_thresholds=1)


@pytest.mark.parametrize("make", [*MAKERS, partial(TemporalSetIoU, missing="skip")])
def test_unchecked_targets_do_not_fail(make):
    width = 3 if make is MomentMeanAveragePrecision else 2
    metric = make(validate_args=False)
    metric.update([[[0.5] * width]], [[[5.0, 3.0], [1.0, 2.0]]])
    assert all(0 <= value <= 1 for value in values(metric).values())
