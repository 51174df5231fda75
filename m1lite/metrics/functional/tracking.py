"""Tracking: how well predicted boxes cover the true ones, box by box. Means over time are the caller's."""

from __future__ import annotations

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float, check_pairs, check_same_shape


def box_iou_sequence(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Intersection over union of each predicted box with the true box of the same time.

    .. math:: |B \cap \hat B| \,/\, (|B| + |\hat B| - |B \cap \hat B|)

    Args:
        prediction: ``(..., T, 4)``, boxes as left, top, right, bottom in one unit (pixels); integers and half precision
            are cast to float32.
        target: ``(..., T, 4)``, the true boxes.

    Returns:
        ``(..., T)`` in [0, 1]. 0 where either box has no area or is reversed; NaN where a bound is NaN. Boxes are not
        cut to the image.

    Raises:
        ValueError: if the shapes differ or the last dimension is not 4.

    References:
        Huang et al. 2019, arXiv:1810.11981 (GOT-10k), overlap; ours adds no epsilon to the denominator.

    Example:
        >>> box_iou_sequence(torch.tensor([[0, 0, 2, 2], [0, 0, 1, 1]]), torch.tensor([[1, 0, 3, 2], [0, 0, 1, 1]]))
        tensor([0.3333, 1.0000])
    """
    check_same_shape(prediction, target)
    check_pairs(prediction, target, width=4)
    prediction, target = as_float(prediction), as_float(target)
    inter = _area(
        torch.maximum(prediction[..., :2], target[..., :2]), torch.minimum(prediction[..., 2:], target[..., 2:])
    )
    union = _area(prediction[..., :2], prediction[..., 2:]) + _area(target[..., :2], target[..., 2:]) - inter
    return torch.where(union <= 0, torch.zeros_like(union), inter / union)


def _area(corner: Tensor, opposite: Tensor) -> Tensor:
    """Area between two corners ``(..., 2)``, 0 where they are reversed."""
    sides = (opposite - corner).clamp(min=0)
    return sides[..., 0] * sides[..., 1]
