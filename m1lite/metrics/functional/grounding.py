"""Temporal grounding: how well a predicted span of time covers the true one. One pair in, one score out.

Sets of spans are in spans.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float, check_pairs


def temporal_iou(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Intersection over union of spans of time.

    .. math:: \max(0, \min(e, \hat e) - \max(s, \hat s)) \,/\, (\max(e, \hat e) - \min(s, \hat s))

    Args:
        prediction: ``(..., 2)``, start and end in one unit (seconds); integers and half precision are cast to float32.
        target: ``(..., 2)``, the true spans in the same unit; broadcast against ``prediction``.

    Returns:
        ``(...)`` in [0, 1]. 0 where the two only touch, where either has no length (both may be the same point), and
        for a reversed prediction; NaN where a bound is NaN.

    Raises:
        ValueError: if the last dimension is not 2.

    References:
        The rule of Charades-STA evaluation; the denominator is the hull, which is the union wherever the two overlap.

    Example:
        >>> temporal_iou(torch.tensor([[0.0, 4.0], [0.0, 1.0]]), torch.tensor([[2.0, 6.0], [5.0, 6.0]]))
        tensor([0.3333, 0.0000])
    """
    check_pairs(prediction, target, width=2)
    prediction, target = as_float(prediction), as_float(target)
    # Whole pairs at once, and in place: half the time of one operation per bound.
    low, high = torch.minimum(prediction, target), torch.maximum(prediction, target)
    inter = (low[..., 1] - high[..., 0]).clamp_(min=0)
    hull = high[..., 1] - low[..., 0]
    # Where the hull is 0 or reversed the intersection is 0, and so the quotient; NaN passes through.
    return inter.div_(hull.clamp_(min=torch.finfo(hull.dtype).tiny))


def temporal_iop(prediction: Tensor, target: Tensor, *, point: float = 0.0) -> Tensor:
    r"""Intersection over the prediction: the share of the predicted span that lies in the true one.

    .. math:: \max(0, \min(e, \hat e) - \max(s, \hat s)) \,/\, (\hat e - \hat s)

    Args:
        prediction: ``(..., 2)``, start and end in one unit (seconds); integers and half precision are cast to float32.
        target: ``(..., 2)``, the true spans in the same unit; broadcast against ``prediction``.
        point: score of a prediction without length that lies in a true span with length, ends included. NExT-GQA gives
            1; the default does not reward saying a single moment.

    Returns:
        ``(...)`` in [0, 1]. 0 for a reversed prediction and where either has no length (but for ``point``); NaN where a
        bound is NaN.

    Raises:
        ValueError: if the last dimension is not 2.

    References:
        Xiao et al. 2024, arXiv:2309.01327 (NExT-GQA), section 5.1.

    Example:
        >>> temporal_iop(torch.tensor([[0.0, 4.0], [2.0, 2.0]]), torch.tensor([[3.0, 9.0], [1.0, 5.0]]))
        tensor([0.2500, 0.0000])
        >>> temporal_iop(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 5.0]), point=1.0)
        tensor(1.)
    """
    check_pairs(prediction, target, width=2)
    (start, end), (true_start, true_end) = as_float(prediction).unbind(-1), as_float(target).unbind(-1)
    inter = (torch.minimum(end, true_end) - torch.maximum(start, true_start)).clamp(min=0)
    length = end - start
    inside = (length == 0) & (true_start <= start) & (end <= true_end) & (true_start < true_end)
    share = torch.where(length <= 0, torch.zeros_like(inter), inter / length)
    return torch.where(inside, torch.full_like(inter, point), share)


def temporal_giou(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Generalised IoU: below 0, the further apart two spans are, where they do not overlap.

    .. math:: \mathrm{IoU} - (|H| - |U|) / |H|, \quad |U| = |\hat S| + |S| - |\hat S \cap S|, \quad H \text{ the hull}

    Args:
        prediction: ``(..., 2)``, start and end in one unit (seconds); integers and half precision are cast to float32.
        target: ``(..., 2)``, the true spans in the same unit; broadcast against ``prediction``.

    Returns:
        ``(...)`` in [-1, 1]; equal to the IoU where the two overlap, 0 where they touch or are the same point, -1 for a
        reversed prediction, NaN where a bound is NaN.

    Raises:
        ValueError: if the last dimension is not 2.

    References:
        Rezatofighi et al. 2019, arXiv:1902.09630, in one dimension.

    Example:
        >>> temporal_giou(torch.tensor([[0.0, 4.0], [0.0, 1.0]]), torch.tensor([[2.0, 6.0], [3.0, 4.0]]))
        tensor([ 0.3333, -0.5000])
    """
    check_pairs(prediction, target, width=2)
    (start, end), (true_start, true_end) = as_float(prediction).unbind(-1), as_float(target).unbind(-1)
    # Signed: below 0 it is the gap between the two, which is what the hull has over the union.
    inter = torch.minimum(end, true_end) - torch.maximum(start, true_start)
    hull = torch.maximum(end, true_end) - torch.minimum(start, true_start)
    giou = torch.where(hull <= 0, torch.zeros_like(inter), inter / hull)
    return torch.where(end < start, torch.full_like(inter, -1.0), giou)


def timestamp_aware_iou(prediction: Tensor, target: Tensor, duration: Tensor | float) -> Tensor:
    r"""IoU times how near each bound is to the true one, as a share of the video.

    .. math:: \mathrm{IoU} \cdot (1 - |\hat s - s| / d) \cdot (1 - |\hat e - e| / d)

    Args:
        prediction: ``(..., 2)``, start and end in one unit (seconds); integers and half precision are cast to float32.
        target: ``(..., 2)``, the true spans in the same unit; broadcast against ``prediction``.
        duration: ``(...)`` or a number, length of the video in the same unit, above 0.

    Returns:
        ``(...)``, at most 1; in [0, 1] for bounds inside the video, below 0 where one bound is off by more than
        ``duration`` (nothing is clamped). 0 where the IoU is 0; NaN where a bound is NaN.

    Raises:
        ValueError: if the last dimension is not 2, or ``duration`` is a number that is not above 0.

    References:
        Wang et al. 2025, arXiv:2503.13377 (Time-R1), timestamp-aware IoU.

    Example:
        >>> timestamp_aware_iou(torch.tensor([4.0, 6.0]), torch.tensor([0.0, 10.0]), 20.0)
        tensor(0.1280)
    """
    if not isinstance(duration, Tensor) and not duration > 0:
        raise ValueError(f"`duration` is {duration}; a video's length is above 0.")
    iou = temporal_iou(prediction, target)
    off = (as_float(prediction) - as_float(target)).abs()  # (..., 2)
    near_start, near_end = (1 - off[..., 0] / duration, 1 - off[..., 1] / duration)
    return torch.where(iou == 0, iou, iou * near_start * near_end)


def scaled_iou(prediction: Tensor, target: Tensor, *, low: float, high: float) -> Tensor:
    r"""IoU stretched so that ``low`` becomes 0 and ``high`` becomes 1.

    .. math:: \mathrm{clamp}((\mathrm{IoU} - \mathrm{low}) / (\mathrm{high} - \mathrm{low}), 0, 1)

    Args:
        prediction: ``(..., 2)``, start and end in one unit (seconds); integers and half precision are cast to float32.
        target: ``(..., 2)``, the true spans in the same unit; broadcast against ``prediction``.
        low: IoU up to which nothing is earned, in [0, high).
        high: IoU from which everything is earned, in (low, 1].

    Returns:
        ``(...)`` in [0, 1]; NaN where a bound is NaN.

    Raises:
        ValueError: if the last dimension is not 2, or not 0 <= low < high <= 1.

    References:
        Zhang et al. 2025, arXiv:2508.04416 (VITAL), the Scale of its reward, whose two constants the paper does not
        give.

    Example:
        >>> spans, true_spans = torch.tensor([[0.0, 4.0], [0.0, 9.0]]), torch.tensor([[2.0, 6.0], [0.0, 9.0]])
        >>> scaled_iou(spans, true_spans, low=0.1, high=0.7)
        tensor([0.3889, 1.0000])
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"`low` is {low} and `high` {high}; they must satisfy 0 <= low < high <= 1.")
    return ((temporal_iou(prediction, target) - low) / (high - low)).clamp(0, 1)
