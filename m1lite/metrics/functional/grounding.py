"""Temporal grounding: how well a predicted span of time covers the true one. One pair in, one score out."""

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
    start, end = prediction.unbind(-1)
    true_start, true_end = target.unbind(-1)
    inter = (torch.minimum(end, true_end) - torch.maximum(start, true_start)).clamp(min=0)
    hull = torch.maximum(end, true_end) - torch.minimum(start, true_start)
    return torch.where(hull <= 0, torch.zeros_like(hull), inter / hull)
