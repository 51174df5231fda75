"""Moment retrieval: average precision of a ranked list of spans against all true spans of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float, check_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def cross_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """IoU of each predicted ``(..., P, 2)`` with each true span ``(..., T, 2)``, both padded with rows of NaN.

    Returns:
        ``(..., P, T)`` in [0, 1], 0 where a row is padding or the two share no time.

    Example:
        >>> cross_iou(torch.tensor([[0.0, 4.0], [8.0, 9.0]]), torch.tensor([[0.0, 5.0]]))
        tensor([[0.8000],
                [0.0000]])
    """
    start, end = prediction[..., :, None, :].unbind(-1)
    true_start, true_end = target[..., None, :, :].unbind(-1)
    inter = (torch.minimum(end, true_end) - torch.maximum(start, true_start)).clamp(min=0)
    union = (end - start) + (true_end - true_start) - inter
    return torch.where(inter > 0, inter / union, 0.0)


def moment_average_precision(
    prediction: Tensor,
    confidence: Tensor,
    target: Tensor,
    *,
    thresholds: Sequence[float],
    overlap: Callable[[Tensor, Tensor], Tensor] = cross_iou,
) -> Tensor:
    r"""Average precision of ranked spans at IoU thresholds.

    Spans are taken by falling confidence (equal ones as listed). Each is right if an unmatched true span has an IoU of
    at least the threshold with it, and takes the best of these (among equal ones the last listed). With precision
    :math:`P_k` and recall :math:`R_k` after the k-th span,

    .. math:: \mathrm{AP} = \sum_k (R_k - R_{k-1}) \max_{j \ge k} P_j

    Args:
        prediction: ``(..., P, 2)``, starts and ends in one unit (seconds); a row with NaN is padding. Integers and half
            precision are cast to float32.
        confidence: ``(..., P)``, larger is surer.
        target: ``(..., T, 2)``, the true spans of the query, padded alike.
        thresholds: K IoU thresholds in (0, 1].
        overlap: takes the spans of both sides to their IoU ``(..., P, T)``, which is 0 at padding.

    Returns:
        float64 ``(..., K)`` in [0, 1]; 0 where nothing is predicted, NaN where there is no true span.

    Raises:
        ValueError: if spans and confidences do not fit, or the last dimension of spans is not 2.

    References:
        Everingham et al. 2010 (PASCAL VOC), interpolated over all points; Lei et al. 2021, arXiv:2107.09609
        (QVHighlights), whose script counts a span as right when both it and a true span are points; here their IoU
        is 0, and its preset has an ``overlap`` of its own.

    Example:
        >>> spans, confidence = torch.tensor([[0.0, 4.0], [8.0, 9.0], [5.0, 7.0]]), torch.tensor([0.9, 0.8, 0.3])
        >>> true_spans = torch.tensor([[0.0, 5.0], [5.0, 7.0]])
        >>> moment_average_precision(spans, confidence, true_spans, thresholds=[0.5, 0.9])
        tensor([0.8333, 0.1667], dtype=torch.float64)
    """
    check_pairs(prediction, target, width=2)
    if confidence.shape != prediction.shape[:-1]:
        raise ValueError(
            f"`confidence` has shape {tuple(confidence.shape)} and `prediction` {tuple(prediction.shape)}; one number "
            "for each span."
        )
    prediction, confidence, target = as_float(prediction), as_float(confidence), as_float(target)
    padding = prediction.isnan().any(-1)
    order = confidence.masked_fill(padding, -float("inf")).sort(dim=-1, descending=True, stable=True).indices
    iou = overlap(prediction, target).gather(-2, order[..., None].expand(*order.shape, target.shape[-2]))
    num_targets = (~target.isnan().any(-1)).sum(-1)[..., None]  # (..., 1)
    right = _match(iou, iou.new_tensor(thresholds))  # (..., K, P)
    return torch.where(num_targets > 0, _area(right, num_targets), float("nan"))


def _match(iou: Tensor, thresholds: Tensor) -> Tensor:
    """Say which spans, best first, are right at each threshold ``(..., K, P)``, when a true span counts once."""
    *batch, num_spans, num_targets = iou.shape
    right = torch.zeros(*batch, len(thresholds), num_spans, dtype=torch.bool, device=iou.device)
    if num_targets == 0:
        return right
    free = torch.ones(*batch, len(thresholds), num_targets, dtype=torch.bool, device=iou.device)
    for rank in range(num_spans):
        near = iou[..., None, rank, :]  # (..., 1, T)
        value, place = torch.where(free & (near >= thresholds[:, None]), near, -1.0).flip(-1).max(-1)
        right[..., rank] = value >= 0
        taken = torch.nn.functional.one_hot(num_targets - 1 - place, num_targets).bool()
        free &= ~(taken & right[..., rank, None])
    return right


def _area(right: Tensor, num_targets: Tensor) -> Tensor:
    """Area under interpolated precision over recall ``(..., K)`` of flags ``(..., K, P)``."""
    if right.shape[-1] == 0:
        return torch.zeros(right.shape[:-1], dtype=torch.float64, device=right.device)
    found = right.double().cumsum(-1)
    ranks = torch.arange(1, right.shape[-1] + 1, dtype=torch.float64, device=right.device)
    precision = (found / ranks).flip(-1).cummax(-1).values.flip(-1)
    recall = found / num_targets[..., None]
    step = recall - torch.nn.functional.pad(recall, (1, 0))[..., :-1]
    return (step * precision).cumsum(-1)[..., -1]  # in order of rank, as a loop would add
