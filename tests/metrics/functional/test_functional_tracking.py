"""Box IoU against official results and by counting pixels, distances of centres against a loop."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m1lite.metrics.functional import box_iou_sequence, center_error

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


def test_more_boxes_than_fit_in_a_block_equal_one_at_a_time():
    boxes, trues = torch.rand(3, 30_000, 4), torch.rand(3, 30_000, 4)
    found = box_iou_sequence(boxes, trues)
    assert found.shape == (3, 30_000)
    for sequence, frame in ((0, 0), (1, 2_768), (1, 2_767), (2, 29_999)):
        assert found[sequence, frame] == box_iou_sequence(boxes[sequence, frame], trues[sequence, frame])


@pytest.mark.parametrize("bound", range(4))
def test_a_missing_bound_is_nan(bound):
    box = torch.tensor([[8.0, 8.0, 9.0, 9.0]])
    box[0, bound] = float("nan")
    for pair in ((box, torch.ones(1, 4)), (torch.tensor([[0.0, 0.0, 4.0, 4.0]]), box)):
        assert box_iou_sequence(*pair).isnan().all()
        assert center_error(*pair).isnan().all()


def test_the_gradient_is_that_of_finite_differences():
    boxes = torch.tensor([[0.0, 0, 4, 5], [1, 2, 9, 8], [20, 20, 30, 30]], dtype=torch.float64, requires_grad=True)
    trues = torch.tensor([[1.0, 1, 5, 4], [2, 1, 8, 9], [0, 0, 3, 3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: box_iou_sequence(values, trues), boxes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_casts_up(dtype):
    boxes, trues = torch.tensor([[0, 0, 4, 4]], dtype=dtype), torch.tensor([[0, 0, 4, 3]], dtype=torch.float64)
    assert box_iou_sequence(boxes, boxes).dtype == torch.float32
    found = box_iou_sequence(boxes, trues)
    assert (found.dtype, found.item()) == (torch.float64, 0.75)


def test_no_boxes():
    assert box_iou_sequence(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4)).shape == (2, 0)
    assert center_error(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


@given(st.lists(st.tuples(BOXES, BOXES), min_size=1, max_size=10))
def test_center_error_equals_the_loop(pairs):
    boxes, trues = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    plain, normalized = [], []
    for (a, b, c, d), (left, top, right, bottom) in pairs:
        across, down = (a + c) / 2 - (left + right) / 2, (b + d) / 2 - (top + bottom) / 2
        plain.append(math.sqrt(across**2 + down**2))
        width, height = right - left, bottom - top
        normalized.append(math.sqrt((across / width) ** 2 + (down / height) ** 2) if width * height else None)
    assert center_error(boxes, trues).tolist() == pytest.approx(plain)
    found = center_error(boxes, trues, normalize=True).tolist()
    kept = [index for index, value in enumerate(normalized) if value is not None]
    assert [found[index] for index in kept] == pytest.approx([normalized[index] for index in kept])
