"""How official scripts compare spans where they differ from metrics/functional: as they are, with their faults.

All of them compute in float64 and in the order of the official loops, so that ties at a threshold fall alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import check_pairs
from m1lite.metrics.presets.r1 import Interval, reward_interval

Spans = Sequence[Sequence[float]]
"""Starts and ends in seconds."""


def time_r1_pair_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """IoU over the hull as Time-R1's evaluation computes it: NaN where both are the same point.

    Args:
        prediction: ``(..., 2)``, seconds.
        target: ``(..., 2)``, seconds.

    References:
        ``compute_IoU`` of xiaomi-research/time-r1 7f2b5944 src/vllm_inference/eval_all.py.

    Example:
        >>> time_r1_pair_iou(torch.tensor([5.0, 5.0]), torch.tensor([5.0, 5.0]))
        tensor(nan, dtype=torch.float64)
    """
    inter, (start, end), (true_start, true_end) = _overlap(prediction, target)
    return inter / (torch.maximum(end, true_end) - torch.minimum(start, true_start)).clamp(min=0)


def moment_detr_cross_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """IoU over the sum of lengths as QVHighlights' script computes it for mAP: NaN where the lengths add up to nothing.

    A reversed span has a negative length there, and can cancel the other one.

    Args:
        prediction: ``(..., 2)``, seconds.
        target: ``(..., 2)``, seconds.

    References:
        ``compute_temporal_iou_batch_cross`` of jayleicn/moment_detr b7e553ac standalone_eval/utils.py.

    Example:
        >>> moment_detr_cross_iou(torch.tensor([[0.0, 2.0], [9.0, 7.0]]), torch.tensor([1.0, 3.0]))
        tensor([0.3333,    nan], dtype=torch.float64)
    """
    inter, (start, end), (true_start, true_end) = _overlap(prediction, target)
    return inter / ((end - start) + (true_end - true_start) - inter)


def moment_detr_overlap(prediction: Tensor, target: Tensor) -> Tensor:
    """IoU of each predicted with each true span as QVHighlights' script takes it for mAP.

    Where :func:`moment_detr_cross_iou` is NaN it fails no threshold, and the true span is the first to be taken: two
    points, wherever they are, match.

    Args:
        prediction: ``(..., P, 2)``, seconds, rows of NaN being padding.
        target: ``(..., T, 2)``, likewise.

    Returns:
        float64 ``(..., P, T)``; inf where the lengths add up to nothing, 0 at padding.

    References:
        ``compute_average_precision_detection`` of jayleicn/moment_detr b7e553ac standalone_eval/utils.py.

    Example:
        >>> moment_detr_overlap(torch.tensor([[5.0, 5.0], [1.0, 2.0]]), torch.tensor([[3.0, 3.0], [1.0, 3.0]]))
        tensor([[   inf, 0.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """
    iou = moment_detr_cross_iou(prediction[..., :, None, :], target[..., None, :, :])
    padding = prediction.isnan().any(-1)[..., :, None] | target.isnan().any(-1)[..., None, :]
    return iou.nan_to_num(nan=float("inf")).masked_fill(padding, 0.0)


def videochat_r1_set_iou(prediction: Spans, target: Spans) -> float:
    """IoU of merged sets of spans as VideoChat-R1 computes it: 1 wherever the union has no length.

    So a reversed prediction, whose length is negative, can score 1; the script refuses those before.

    References:
        ``compute_iou`` of OpenGVLab/VideoChat-R1 73b2ea9a src_eval/evaluate_gqa.py.

    Example:
        >>> videochat_r1_set_iou([[0.0, 2.0], [1.0, 4.0]], [[3.0, 5.0]])
        0.2
        >>> videochat_r1_set_iou([[9.0, 7.0]], [[1.0, 3.0]])
        1.0
    """
    prediction, target = _merged(prediction), _merged(target)
    inter = _sweep(prediction, target)
    union = _length(prediction) + _length(target) - inter
    return 1.0 if union == 0 else inter / union


def videochat_r1_grounding_reward(text: str, target: Interval) -> float:
    """IoU that VideoChat-R1's grounding script rewards: 0 for no span or a reversed one, 1 where the hull is a point.

    References:
        ``iou_timestamp_reward`` of OpenGVLab/VideoChat-R1 73b2ea9a src/open_r1/grpo_tg.py.

    Example:
        >>> videochat_r1_grounding_reward("<answer>2 to 6</answer>", (4.0, 8.0))
        0.3333333333333333
    """
    pair = reward_interval(text, ordered=True)
    if pair is None:
        return 0.0
    hull = max(pair[1], target[1]) - min(pair[0], target[0])
    return 1.0 if hull == 0 else max(0.0, min(pair[1], target[1]) - max(pair[0], target[0])) / hull


def vue_tr_overlap(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IoU, precision and recall of VUE-TR, each ``(N,)``, NaN where a sample leaves that mean.

    IoU: predicted spans are merged and reversed ones dropped, true spans are neither, so that where these overlap their
    time counts twice; 1 where both sides are empty. Precision and recall: overlaps are swept up in the order of the
    lists, unmerged, over the summed lengths of one side: unsorted lists lose overlap, duplicates reach values above 1.
    A side whose lengths sum to nothing leaves its mean.

    Args:
        prediction: ``(N, P, 2)``, seconds, rows of NaN being padding.
        target: ``(N, T, 2)``, likewise.

    References:
        ``overlap_ratio`` and ``compute_precision_recall`` of bytedance/vidi fc30c870 VUE_TR/qa_eval.py.

    Example:
        >>> chosen, true = torch.tensor([[[0.0, 5.0]]]), torch.tensor([[[2.0, 4.0], [3.0, 7.0]]])
        >>> [round(value.item(), 3) for value in vue_tr_overlap(chosen, true)]
        [0.571, 0.8, 0.667]
    """
    return _vue_tr_overlap(prediction, target, nothing=float("nan"))


def vue_tr_v2_overlap(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IoU, precision and recall of VUE-TR-V2: as :func:`vue_tr_overlap`, with precision 1 where neither side has time.

    References:
        ``compute_precision_recall`` of bytedance/vidi fc30c870 VUE_TR_V2/qa_eval.py.

    Example:
        >>> [value.item() for value in vue_tr_v2_overlap(torch.zeros(1, 0, 2), torch.zeros(1, 0, 2))]
        [1.0, 1.0, nan]
    """
    return _vue_tr_overlap(prediction, target, nothing=1.0)


def _vue_tr_overlap(prediction: Tensor, target: Tensor, *, nothing: float) -> tuple[Tensor, Tensor, Tensor]:
    pairs = list(zip(_rows(prediction), _rows(target), strict=True))
    values = [(_vue_tr_iou(chosen, true), *_vue_tr_shares(chosen, true, nothing=nothing)) for chosen, true in pairs]
    columns = torch.tensor(values, dtype=torch.float64, device=prediction.device).reshape(-1, 3)
    iou, precision, recall = columns.unbind(-1)
    return iou, precision, recall


def _vue_tr_iou(prediction: Spans, target: Spans) -> float:
    if not prediction or not target:
        return 1.0 if len(prediction) == len(target) else 0.0
    prediction = [span for span in _merged(prediction) if span[0] <= span[1]]
    inter = 0.0
    for start, end in prediction:
        for true_start, true_end in target:
            inter += max(0.0, min(end, true_end) - max(start, true_start))
    union = _length(prediction) + _length(target) - inter
    return max(min(1.0, inter / (union + 1e-16)), 0.0)


def _vue_tr_shares(prediction: Spans, target: Spans, *, nothing: float) -> tuple[float, float]:
    prediction, target = ([(min(span), max(span)) for span in side] for side in (prediction, target))
    inter, chosen, true = _sweep(target, prediction), _length(prediction), _length(target)
    precision = inter / chosen if chosen else (nothing if not true else float("nan"))
    return precision, inter / true if true else float("nan")


def _rows(spans: Tensor) -> list[list[list[float]]]:
    """Write padded spans as lists, in their order, without padding."""
    return [[row for row in sample if row[0] == row[0]] for sample in spans.double().tolist()]


def _merged(spans: Spans) -> list[list[float]]:
    """Sort spans by start, and let each that overlaps or touches the one before lengthen it."""
    merged: list[list[float]] = []
    for start, end in sorted(spans, key=lambda span: span[0]):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def _sweep(first: Spans, second: Spans) -> float:
    """Overlap of two lists, each step leaving behind the span that ends first (of ``second`` if both end at once)."""
    inter = 0.0
    place, other = 0, 0
    while place < len(first) and other < len(second):
        (start, end), (other_start, other_end) = first[place], second[other]
        inter += max(0.0, min(end, other_end) - max(start, other_start))
        if end < other_end:
            place += 1
        else:
            other += 1
    return inter


def _length(spans: Spans) -> float:
    # Not sum(): from Python 3.12 on it rounds floats better than the official loops do.
    total = 0.0
    for start, end in spans:
        total += end - start
    return total


def _overlap(prediction: Tensor, target: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Time that two spans share, and their bounds, all in float64."""
    check_pairs(prediction, target, width=2)
    bounds, true_bounds = prediction.double().unbind(-1), target.double().unbind(-1)
    inter = torch.minimum(bounds[1], true_bounds[1]) - torch.maximum(bounds[0], true_bounds[0])
    return inter.clamp(min=0), bounds, true_bounds
