"""Official protocols of temporal grounding: what they report, and their faults, each by hand."""

import math

import pytest
import torch

from m1lite.metrics.presets import find_preset
from m1lite.metrics.presets._spans_official import (
    moment_detr_cross_iou,
    time_r1_pair_iou,
    videochat_r1_grounding_reward,
    videochat_r1_set_iou,
    vue_tr_overlap,
    vue_tr_v2_overlap,
)


def row(*bounds):
    return torch.tensor(bounds, dtype=torch.float64)


def test_time_r1_counts_above_the_threshold_and_videochat_r1_at_it():
    items = [
        {"response": "<think>1 to 2</think><answer>0 to 7</answer>", "target": [0, 10]},
        {"response": "in the middle", "target": [0, 10]},
    ]
    found = find_preset("time_r1").score(items)
    assert found == pytest.approx({"mIoU": 35.0, "0.3": 50.0, "0.5": 50.0, "0.7": 0.0, "avg": 33.75})
    found = find_preset("videochat_r1_grounding").score(items)
    assert found == pytest.approx({"mIoU": 0.35, "R@0.3": 0.5, "R@0.5": 0.5, "R@0.7": 0.5})


def test_qvhighlights_reports_two_decimals_and_skips_empty_lists():
    items = [
        {"pred_relevant_windows": [[0, 10, 0.2], [20, 60, 0.9]], "relevant_windows": [[0, 10], [20, 60]]},
        {"pred_relevant_windows": [[0, 15, 0.5]], "relevant_windows": [[0, 20], [100, 140], [40, 50]]},
        {"pred_relevant_windows": [], "relevant_windows": [[0, 20]]},
    ]
    found = find_preset("qvhighlights").score(items)
    assert set(found) == {"short", "middle", "long", "full", "brief"}
    assert found["full"]["MR-mAP"]["0.5"] == 66.67
    assert found["full"]["MR-mAP"]["0.8"] == 50.0
    assert found["full"]["MR-mAP"]["average"] == 60.0
    assert found["full"]["MR-R1"]["0.75"] == 100.0
    assert found["short"]["MR-mAP"]["0.95"] == 25.0
    assert found["middle"]["MR-R1"]["0.8"] == 0.0
    assert found["brief"]["MR-full-mAP"] == 60.0
    assert found["brief"]["MR-long-mAP"] == found["long"]["MR-mAP"]["average"] == 50.0


def test_qvhighlights_matches_spans_whose_lengths_cancel():
    items = [
        {"pred_relevant_windows": [[9, 7, 0.9], [5, 5, 0.5], [1, 3, 0.2]], "relevant_windows": [[1, 3], [4, 4]]},
        {"pred_relevant_windows": [[2, 2, 0.5]], "relevant_windows": [[2, 2]]},
        {"pred_relevant_windows": [[0, 10, 1]], "relevant_windows": [[9, 7], [0, 10]]},  # a true span is reversed
    ]
    full = find_preset("qvhighlights").score(items)["full"]
    assert (full["MR-mAP"]["0.5"], full["MR-mAP"]["average"], full["MR-R1"]["0.5"]) == (83.33, 83.33, 33.33)


def test_vue_tr_takes_reversed_true_spans():
    found = find_preset("vue_tr").score([{"answer": [[3, 1]], "gt": [[3, 1]]}])
    assert found == {"Precision": 100.0, "Recall": 100.0, "IoU": 0.0}


def test_vue_tr_widens_answers_to_whole_seconds_and_reports_areas():
    preset = find_preset("vue_tr")
    answer, target = preset.read({"answer": [[1.2, 4.5]], "gt": [[1.0, 5.0]]})
    assert answer[0].tolist() == [[1.0, 5.0]]
    assert target[0].tolist() == [[1.0, 5.0]]
    assert preset.score([{"answer": [[1.2, 4.5]], "gt": [[1.0, 5.0]]}]) == {
        "Precision": 100.0,
        "Recall": 100.0,
        "IoU": 99.5,
    }


def test_vue_tr_versions_differ_where_nothing_is_to_be_found():
    items = [{"answer": [[]], "gt": []}, {"answer": [[0, 10]], "gt": [[0, 5]]}]
    with_iou = {"Recall": 100.0, "IoU": 74.5}
    assert find_preset("vue_tr_v2").score(items) == pytest.approx({"Precision": 75.25, **with_iou})
    assert find_preset("vue_tr").score(items) == pytest.approx({"Precision": 50.5, **with_iou})


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_vue_tr_of_nothing_is_nan():
    with pytest.warns(UserWarning, match="saw no samples"):
        found = find_preset("vue_tr").score([])
    assert all(math.isnan(value) for value in found.values())


def test_vue_tr_sweeps_lists_in_their_order():
    def shares(prediction, target):
        found = vue_tr_overlap(row(*prediction)[None], row(*target)[None])
        return [value.item() for value in found]

    assert shares([[5.0, 6.0], [0.0, 1.0]], [[0.0, 1.0], [5.0, 6.0]]) == [1.0, 0.5, 0.5]
    assert shares([[1.0, 8.0]], [[1.0, 5.0], [3.0, 8.0]]) == pytest.approx([1.0, 9 / 7, 1.0])
    assert shares([[5.0, 1.0]], [[1.0, 5.0]]) == [0.0, 1.0, 1.0]
    assert shares([[3.0, 3.0]], [[1.0, 5.0]]) == pytest.approx([0.0, math.nan, 0.0], nan_ok=True)


def test_vue_tr_without_spans():
    nothing, one = torch.zeros(1, 0, 2), torch.tensor([[[0.0, 1.0]]])
    empty = [value.item() for value in vue_tr_overlap(nothing, nothing)]
    assert empty == pytest.approx([1.0, math.nan, math.nan], nan_ok=True)
    assert [value.item() for value in vue_tr_v2_overlap(nothing, nothing)][:2] == [1.0, 1.0]
    assert vue_tr_v2_overlap(one, nothing)[0].item() == 0.0
    assert [len(value) for value in vue_tr_overlap(nothing[:0], nothing[:0])] == [0, 0, 0]


def test_degenerate_spans_where_the_scripts_differ():
    point, whole = row(5.0, 5.0), row(2.0, 8.0)
    assert math.isnan(time_r1_pair_iou(point, point).item())
    assert math.isnan(moment_detr_cross_iou(point, point).item())
    assert math.isnan(moment_detr_cross_iou(row(8.0, 2.0), whole).item())
    assert time_r1_pair_iou(row(8.0, 2.0), whole).item() == 0.0
    assert videochat_r1_set_iou([], []) == 1.0
    assert videochat_r1_set_iou([[5.0, 5.0]], [[5.0, 5.0]]) == 1.0
    assert videochat_r1_set_iou([], [[1.0, 2.0]]) == 0.0


def test_videochat_r1_rewards_a_point_with_1_and_a_reversed_span_with_0():
    assert videochat_r1_grounding_reward("<answer>5 to 5</answer>", (5.0, 5.0)) == 1.0
    assert videochat_r1_grounding_reward("<answer>8 to 2</answer>", (2.0, 8.0)) == 0.0
    assert videochat_r1_grounding_reward("2 to 8", (2.0, 8.0)) == 0.0
