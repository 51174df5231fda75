"""Tracking: how well predicted boxes cover the true ones, box by box. Means over time are the caller's."""

from __future__ import annotations

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float, check_pairs, check_same_shape

_BLOCK = 2**16
"""Boxes worked on at a time on a CPU."""


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
    prediction, target = _checked(prediction, target)
    boxes, trues = prediction.reshape(-1, 4), target.reshape(-1, 4)
    # Block by block the intermediate sums stay in the processor's cache; a GPU rather has few launches.
    size = _BLOCK if boxes.device.type == "cpu" else max(1, len(boxes))
    blocks = [_iou(*pair) for pair in zip(boxes.split(size), trues.split(size), strict=True)]
    return torch.cat(blocks).reshape(prediction.shape[:-1])


def center_error(prediction: Tensor, target: Tensor, *, normalize: bool = False) -> Tensor:
    r"""Distance between the centres of each predicted box and the true box of the same time.

    .. math:: \lVert c - \hat c \rVert_2, \quad \text{or } \lVert (c - \hat c) \oslash (w, h) \rVert_2

    Args:
        prediction: ``(..., T, 4)``, boxes as left, top, right, bottom in one unit (pixels); integers and half precision
            are cast to float32.
        target: ``(..., T, 4)``, the true boxes.
        normalize: divide each axis by the true box's width or height, so that the size of the target doesn't matter.

    Returns:
        ``(..., T)``, at least 0, in the unit of the boxes, or a pure number with ``normalize``: then inf, or NaN where
        the centres agree too, for a true box without width or height. NaN where a bound is NaN.

    Raises:
        ValueError: if the shapes differ or the last dimension is not 4.

    References:
        Wu et al. 2015 (OTB), precision plot; Müller et al. 2018, arXiv:1803.10794 (TrackingNet), normalised precision.

    Example:
        >>> boxes, true = torch.tensor([[3, 4, 13, 24]]), torch.tensor([[0, 0, 10, 20]])
        >>> center_error(boxes, true), center_error(boxes, true, normalize=True)
        (tensor([5.]), tensor([0.3606]))
    """
    prediction, target = _checked(prediction, target)
    left, top, right, bottom = prediction.unbind(-1)
    true_left, true_top, true_right, true_bottom = target.unbind(-1)
    across = ((left - true_left) + (right - true_right)) / 2
    down = ((top - true_top) + (bottom - true_bottom)) / 2
    if normalize:
        across, down = across / (true_right - true_left), down / (true_bottom - true_top)
    return torch.hypot(across, down)


def _iou(prediction: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of floating boxes ``(N, 4)``."""
    low, high = torch.minimum(prediction, target), torch.maximum(prediction, target)
    # Column by column: slices of pairs take four times as long, since their inner loop has two steps.
    inter = (low[:, 2] - high[:, 0]).clamp_(min=0).mul_((low[:, 3] - high[:, 1]).clamp_(min=0))
    left, top, right, bottom = prediction.unbind(-1)
    true_left, true_top, true_right, true_bottom = target.unbind(-1)
    union = (right - left).mul_(bottom - top)
    union = union.addcmul_(true_right - true_left, true_bottom - true_top).sub_(inter)
    # A reversed box meets no other, so that only the sign of its area matters: where the union is not above 0 the
    # intersection is 0, and so the quotient. NaN passes through.
    return inter.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def _checked(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Refuse shapes that are no boxes, and cast both to one floating dtype."""
    check_same_shape(prediction, target)
    check_pairs(prediction, target, width=4)
    prediction, target = as_float(prediction), as_float(target)
    dtype = torch.promote_types(prediction.dtype, target.dtype)
    return prediction.to(dtype), target.to(dtype)
