"""Tracking metrics against loops over lists written from the definitions, and by hand."""

import math
import random

import pytest
import torch

from m1lite.metrics import SuccessPrecision, TrackingOverlap

THRESHOLDS = [step / 20 for step in range(21)]


def iou(box, true):
    width = min(box[2], true[2]) - max(box[0], true[0])
    height = min(box[3], true[3]) - max(box[1], true[1])
    inter = max(0, width) * max(0, height)
    area = max(0, box[2] - box[0]) * max(0, box[3] - box[1])
    union = area + (true[2] - true[0]) * (true[3] - true[1]) - inter
    return inter / union if union else 0.0


def draw_box(chance):
    left, top = chance.randint(0, 40), chance.randint(0, 40)
    return [float(left), float(top), float(left + chance.randint(4, 60)), float(top + chance.randint(4, 60))]


def draw_sequences(count, seed):
    """Ragged sequences: predictions (None at times), true boxes, masks."""
    chance = random.Random(seed)
    predictions, targets, masks = [], [], []
    for _ in range(count):
        length = chance.randint(2, 9)
        true = [draw_box(chance) for _ in range(length)]
        near = [[bound + chance.randint(-6, 6) for bound in box] for box in true]
        targets.append(true)
        predictions.append(None if chance.random() < 0.2 else near)
        masks.append([chance.random() < 0.8 for _ in range(length)])
    return predictions, targets, masks


def scored_frames(predictions, targets, masks, skip_first=True):
    """Per sequence, the pairs to score."""
    sequences = []
    for boxes, trues, mask in zip(predictions, targets, masks, strict=True):
        frames = range(1 if skip_first else 0, len(trues))
        sequences.append([(boxes[t] if boxes else None, trues[t]) for t in frames if mask[t]])
    return sequences


def overlaps(frames):
    return [iou(*pair) if pair[0] else 0.0 for pair in frames]


def mean(values):
    return sum(values) / len(values)


def shares(values, thresholds, strict):
    return [mean([value > t if strict else value >= t for value in values]) for t in thresholds]


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def as_tensors(rows):
    return [None if row is None else torch.tensor(row, dtype=torch.float64) for row in rows]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("average", ["frame", "sequence", "class"])
def test_overlap_equals_the_loop(average, strict):
    predictions, targets, masks = draw_sequences(40, seed=1)
    labels = [index % 3 if index % 3 != 2 else 4 for index in range(40)]  # classes 2 and 3 are never seen
    metric = TrackingOverlap(
        thresholds=[0.25, 0.5, 0.75], strict=strict, average=average, num_classes=5 if average == "class" else None
    )
    for part in (slice(0, 7), slice(7, 40)):
        more = {"labels": labels[part]} if average == "class" else {}
        metric.update(as_tensors(predictions[part]), as_tensors(targets[part]), masks[part], **more)

    sequences = [overlaps(frames) for frames in scored_frames(predictions, targets, masks)]
    if average == "frame":
        groups = [[[value for sequence in sequences for value in sequence]]]
    elif average == "sequence":
        groups = [[sequence for sequence in sequences if sequence]]
    else:
        groups = [[s for s, label in zip(sequences, labels, strict=True) if s and label == c] for c in (0, 1, 4)]
    expected = {"ao": mean([mean([mean(sequence) for sequence in group]) for group in groups])}
    for k, threshold in enumerate((0.25, 0.5, 0.75)):
        rates = [[shares(sequence, (0.25, 0.5, 0.75), strict)[k] for sequence in group] for group in groups]
        expected[f"sr@{threshold}"] = mean([mean(group) for group in rates])
    assert values(metric) == pytest.approx(expected)


@pytest.mark.parametrize("skip_first", [True, False])
def test_success_and_precision_equal_the_loop(skip_first):
    predictions, targets, masks = draw_sequences(40, seed=2)
    metric = SuccessPrecision(precision_pixels=3, normalized_distance=0.1, skip_first=skip_first)
    for part in (slice(0, 25), slice(25, 40)):
        metric.update(as_tensors(predictions[part]), as_tensors(targets[part]), masks[part])

    curves, near, near_normalized = [], [], []
    for frames in scored_frames(predictions, targets, masks, skip_first):
        if not frames:
            continue
        curves.append(shares(overlaps(frames), THRESHOLDS, strict=True))
        plain, normalized = [], []
        for box, (left, top, right, bottom) in frames:
            if box is None:
                plain.append(math.inf)
                normalized.append(math.inf)
                continue
            across, down = (box[0] + box[2] - left - right) / 2, (box[1] + box[3] - top - bottom) / 2
            plain.append(math.hypot(across, down))
            normalized.append(math.hypot(across / (right - left), down / (bottom - top)))
        near.append(mean([distance <= 3 for distance in plain]))
        near_normalized.append(mean([distance <= 0.1 for distance in normalized]))
    expected = {
        "success_auc": mean([mean(curve) for curve in curves]),
        "success@0.5": mean([curve[10] for curve in curves]),
        "success@0.75": mean([curve[15] for curve in curves]),
        "precision": mean(near),
        "normalized_precision": mean(near_normalized),
    }
    assert values(metric) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "key"),
    [(lambda: TrackingOverlap(average="sequence"), "ao"), (SuccessPrecision, "success_auc")],
    ids=["overlap", "success"],
)
def test_the_mean_of_the_scores_is_the_value(make, key):
    predictions, targets, masks = draw_sequences(30, seed=3)
    metric = make()
    metric.update(as_tensors(predictions), as_tensors(targets), masks)
    scores = metric.score(as_tensors(predictions), as_tensors(targets), masks)
    assert scores.shape == (30,)
    assert scores.isnan().tolist() == [not any(mask[1:]) for mask in masks]
    assert values(metric)[key] == pytest.approx(scores.nanmean().item())


def test_padded_tensors_equal_lists():
    predictions, targets, masks = draw_sequences(12, seed=4)
    listed, padded = TrackingOverlap(), TrackingOverlap()
    listed.update(as_tensors(predictions), as_tensors(targets), masks)
    boxes, trues = torch.full((12, 9, 4), math.nan), torch.full((12, 9, 4), math.nan)
    mask = torch.zeros(12, 9, dtype=torch.bool)
    for row, (box, true, seen) in enumerate(zip(predictions, targets, masks, strict=True)):
        trues[row, : len(true)] = torch.tensor(true)
        mask[row, : len(true)] = torch.tensor(seen)
        if box is not None:
            boxes[row, : len(true)] = torch.tensor(box)
    before = mask.clone()
    padded.update(boxes, trues, mask)
    assert values(padded) == pytest.approx(values(listed), rel=1e-5)
    assert torch.equal(mask, before)


def test_half_precision_and_whole_numbers():
    exact = [[0.0, 0, 8, 8], [0, 0, 8, 4], [4, 4, 12, 12]]
    found = []
    for dtype in (torch.bfloat16, torch.float16, torch.int32, torch.float64):
        metric = TrackingOverlap()
        metric.update(torch.tensor([exact]).to(dtype), torch.tensor([[[0.0, 0, 8, 8]] * 3]).to(dtype))
        found.append(values(metric))
    assert found == [pytest.approx({"ao": (1 / 2 + 1 / 7) / 2, "sr@0.5": 0.5, "sr@0.75": 0.0}, rel=1e-6)] * 4
    mixed = TrackingOverlap()
    mixed.update([[[0, 0, 8, 8], [0, 0, 8, 4]], None], [torch.tensor(exact[:2]), torch.tensor(exact[:2])])
    assert values(mixed)["ao"] == 0.5


def test_a_threshold_is_compared_in_the_dtype_of_the_overlaps():
    target = torch.tensor([[[0.0, 0, 10, 1], [0, 0, 10, 1]]])
    prediction = torch.tensor([[[0.0, 0, 10, 1], [0, 0, 7, 1]]])  # 0.7 in float32 lies below 0.7 in float64
    for strict, rate in ((False, 1.0), (True, 0.0)):
        metric = TrackingOverlap(thresholds=[0.7], strict=strict)
        metric.update(prediction, target)
        assert values(metric)["sr@0.7"] == rate


def test_an_overlap_of_ones_own():
    metric = TrackingOverlap(overlap=lambda prediction, target: (prediction == target).all(-1).double())
    boxes = torch.tensor([[[0.0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 9, 9]]])
    metric.update(boxes, torch.tensor([[[0.0, 0, 1, 1]] * 3]))
    assert values(metric)["ao"] == 0.5


def test_nothing_to_score():
    for metric in (TrackingOverlap(), TrackingOverlap(average="class", num_classes=2), SuccessPrecision()):
        more = {"labels": [0]} if isinstance(metric, TrackingOverlap) and metric.num_classes else {}
        metric.update(torch.ones(1, 1, 4), torch.ones(1, 1, 4), **more)  # the first frame only
        with pytest.warns(UserWarning, match=f"`{type(metric).__name__}` saw no samples"):
            assert all(math.isnan(value) for value in values(metric).values())
    empty = TrackingOverlap()
    empty.update([], [])
    empty.update(torch.zeros(0, 5, 4), torch.zeros(0, 5, 4))
    assert empty.count.tolist() == [0.0]


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"`thresholds` holds 1\.5"):
        TrackingOverlap(thresholds=[1.5])
    with pytest.raises(ValueError, match="`average` is 'video'"):
        TrackingOverlap(average="video")
    with pytest.raises(ValueError, match="`num_classes` is None with average='class'"):
        TrackingOverlap(average="class")
    with pytest.raises(ValueError, match="`num_classes` is 3 with average='frame'"):
        TrackingOverlap(num_classes=3)
    with pytest.raises(ValueError, match="`precision_pixels` is -1"):
        SuccessPrecision(precision_pixels=-1)
    boxes = torch.tensor([[[0.0, 0, 1, 1]] * 3])
    for metric in (TrackingOverlap(), SuccessPrecision()):
        with pytest.raises(ValueError, match=r"`target` has shape \(3, 4\); it must be \(N, T, 4\)"):
            metric.update(boxes[0], boxes[0])
        with pytest.raises(ValueError, match=r"`prediction` has shape \(1, 2, 4\) and `target` \(1, 3, 4\)"):
            metric.update(boxes[:, :2], boxes)
        with pytest.raises(ValueError, match="`prediction` holds 2 sequences for 1 targets"):
            metric.update([None, None], boxes)
        with pytest.raises(ValueError, match=r"`prediction\[0\]` has shape \(2, 4\) and `target\[0\]` \(3, 4\)"):
            metric.update([boxes[0, :2]], boxes)
        with pytest.raises(ValueError, match=r"`mask` has shape \(1, 2\); it must be \(1, 3\)"):
            metric.update(boxes, boxes, torch.ones(1, 2, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"`mask\[0\]` has shape \(2,\) and `target\[0\]` \(3, 4\)"):
            metric.update(boxes, boxes, [[True, True]])
        wrong = boxes.clone()
        wrong[0, 2, 2] = -5
        with pytest.raises(ValueError, match=r"`target\[0\]\[2\]` is \[0\.0, 0\.0, -5\.0, 1\.0\]"):
            metric.update(boxes, wrong)
        wrong[0, 2, 2] = math.inf
        with pytest.raises(ValueError, match=r"`target\[0\]\[2\]` is \[0\.0, 0\.0, inf, 1\.0\]"):
            metric.update(boxes, wrong)
        metric.update(boxes, wrong, torch.tensor([[True, True, False]]))
    classes = TrackingOverlap(average="class", num_classes=2)
    with pytest.raises(ValueError, match="`labels` is None"):
        classes.update(boxes, boxes)
    with pytest.raises(ValueError, match=r"`labels\[0\]` is 2; it must be in \[0, 2\)"):
        classes.update(boxes, boxes, labels=[2])
    with pytest.raises(ValueError, match=r"`labels` has shape \(2,\); it must be \(1,\)"):
        classes.update(boxes, boxes, labels=[0, 1])
    with pytest.raises(ValueError, match="`labels` are given, but average='frame'"):
        TrackingOverlap().update(boxes, boxes, labels=[0])
