"""Box IoU against official results and by counting pixels."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import box_iou_sequence

GOLDEN = json.loads((Path(__file__).parents[2] / "golden_cases" / "box_iou.json").read_text())
SIDES = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(sorted)
BOXES = st.tuples(SIDES, SIDES).map(lambda sides: [sides[0][0], sides[1][0], sides[0][1], sides[1][1]])


def corners(boxes):
    rows = [[float(number) for number in box] for box in boxes]
    return [[left, top, left + width, top + height] for left, top, width, height in rows]


@pytest.mark.parametrize("row", GOLDEN["got10k_rect_iou"], ids=lambda row: row["tag"])
def test_official_values_of_got10k(row):
    boxes, trues = (torch.tensor(corners(row[side]), dtype=torch.float64) for side in ("pred_ltwh", "gt_ltwh"))
    expected = [float(iou) for iou in row["iou"]]
    assert box_iou_sequence(boxes, trues).tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("row", GOLDEN["videochat_r1_track"])
def test_official_values_of_videochat_r1(row):
    boxes, trues = (torch.tensor(row[side], dtype=torch.float64) for side in ("pred_xyxy", "gt_xyxy"))
    found = box_iou_sequence(boxes, trues)
    assert found.tolist() == pytest.approx(row["per_box"], abs=1e-12)
    assert found.mean().item() == pytest.approx(row["average_overlap"], abs=1e-12)


def pixels(box):
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@given(st.lists(st.tuples(BOXES, BOXES), min_size=1, max_size=10))
def test_equals_counting_pixels(pairs):
    boxes, trues = (torch.tensor(side) for side in zip(*pairs, strict=True))
    expected = []
    for box, true in pairs:
        inside, union = pixels(box) & pixels(true), pixels(box) | pixels(true)
        expected.append(len(inside) / len(union) if union else 0.0)
    assert box_iou_sequence(boxes, trues).tolist() == pytest.approx(expected)


def test_many_sequences_at_once():
    boxes, trues = torch.rand(3, 5, 4), torch.rand(3, 5, 4)
    found = box_iou_sequence(boxes, trues)
    assert found.shape == (3, 5)
    for row in range(3):
        assert torch.equal(found[row], box_iou_sequence(boxes[row], trues[row]))


@pytest.mark.parametrize("box", [[2, 2, 2, 4], [3, 3, 1, 1], [3, 1, 1, 3]])
def test_a_box_without_area_or_reversed_scores_zero(box):
    assert box_iou_sequence(torch.tensor([box]), torch.tensor([[0, 0, 4, 4]])).item() == 0.0
    assert box_iou_sequence(torch.tensor([box]), torch.tensor([box])).item() == 0.0


def test_errors_name_the_shape():
    with pytest.raises(ValueError, match=r"`prediction` has shape \(2, 4\) and `target` \(3, 4\)"):
        box_iou_sequence(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"`prediction` has shape \(2, 5\); its last dimension must hold 4"):
        box_iou_sequence(torch.zeros(2, 5), torch.zeros(2, 5))
