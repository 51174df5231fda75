"""What the official tracking toolkits compute per frame, from boxes as left, top, width, height in float64.

Their faults are part of it: an epsilon in the denominator, boxes shifted at the border of the image, frames without a
true box that count as misses of one kind and hits of another. The sane rules are in functional/tracking.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

PyTrackingDataset = Literal["lasot", "uav", "other"]
"""Data sets that pytracking treats in their own way; "other": OTB, NFS, GOT-10k, TrackingNet, …"""


class PyTrackingErrors(NamedTuple):
    """What pytracking knows of each frame ``(T,)`` of a sequence."""

    overlap: Tensor
    """IoU; -1 where there is no true box."""
    center: Tensor
    """Distance of the centres, pixels; inf where there is no true box, -1 on UAV123."""
    normalized_center: Tensor
    """Distance in widths and heights of the true box; where there is none -1, which is below every threshold."""
    valid: Tensor
    """bool, whether there is a true box."""


def read_boxes(rows: Tensor | Sequence[Any]) -> Tensor:
    """Write rows of numbers as float64 ``(..., 4)``."""
    return torch.as_tensor(rows, dtype=torch.float64)


def got10k_bounded(boxes: Tensor, width_height: Sequence[float]) -> Tensor:
    """Bring boxes ``(..., 4)`` into the image as the GOT-10k toolkit does.

    The corner is moved into the image, then the sides are cut at its far borders. A box that begins left of the image
    is so shifted and keeps its width.

    Example:
        >>> got10k_bounded(torch.tensor([[-10.0, 95.0, 20.0, 20.0]]), (100, 100))
        tensor([[ 0., 95., 20.,  5.]])
    """
    bound = boxes.new_tensor(tuple(width_height))
    corner = boxes[..., :2].clamp(min=0).minimum(bound)
    sides = boxes[..., 2:].clamp(min=0).minimum(bound - corner)
    return torch.cat([corner, sides], -1)


def got10k_overlap(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the IoU ``(...)`` of boxes ``(..., 4)`` with the GOT-10k toolkit's epsilon in the denominator.

    It lowers the IoU of very small boxes: by half for boxes of 1e-8 units. NaN boxes give NaN.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]], dtype=torch.float64)
        >>> got10k_overlap(boxes, boxes + torch.tensor([1.0, 0.0, 0.0, 0.0]))
        tensor([0.3333], dtype=torch.float64)
    """
    corner = torch.maximum(prediction[..., :2], target[..., :2])
    far = torch.minimum(prediction[..., :2] + prediction[..., 2:], target[..., :2] + target[..., 2:])
    inter = (far - corner).clamp(min=0).prod(-1)
    union = prediction[..., 2:].prod(-1) + target[..., 2:].prod(-1) - inter
    return (inter / (union + torch.finfo(torch.float64).eps)).clamp(0, 1)


def got10k_center_error(prediction: Tensor, target: Tensor, *, normalize: bool = False) -> Tensor:
    """Return the distance ``(...)`` of the centres of boxes ``(..., 4)``.

    With ``normalize`` in sides of the true box, which count as 1 where they are smaller: of use for pixels only.

    Example:
        >>> boxes = torch.tensor([[3.0, 4.0, 10.0, 20.0]])
        >>> got10k_center_error(boxes, torch.tensor([[0.0, 0.0, 10.0, 20.0]]))
        tensor([5.])
    """
    offset = _centers(prediction) - _centers(target)
    if normalize:
        offset = offset / target[..., 2:].clamp(min=1)
    return offset.square().sum(-1).sqrt()


def pytracking_errors(
    prediction: Tensor | Sequence[Any],
    target: Tensor | Sequence[Any],
    *,
    visible: Sequence[Any] | None = None,
    dataset: PyTrackingDataset = "other",
) -> PyTrackingErrors:
    """Compare one sequence as pytracking's robust per-sequence errors do.

    A predicted box without area is replaced by the one before, a longer prediction is cut, a shorter one filled up with
    empty boxes, and the first box replaced by the true one. A true box is valid where all of its four numbers are above
    0: one at the left border of the image is not.

    Args:
        prediction: ``(T, 4)``, boxes as left, top, width, height, pixels.
        target: ``(T, 4)``, the true boxes.
        visible: ``(T,)``, whether the object can be seen; None: always. LaSOT needs it.
        dataset: which data set's exceptions apply.

    Raises:
        ValueError: where the official code stops: on NaN, negative sides, a LaSOT prediction that is too short or
            without ``visible``.

    Example:
        >>> boxes = [[1, 1, 4, 4], [2, 1, 4, 4]]
        >>> pytracking_errors(boxes, [[1, 1, 4, 4], [0, 1, 4, 4]]).overlap
        tensor([ 1., -1.], dtype=torch.float64)
    """
    boxes, trues = read_boxes(prediction), read_boxes(target)
    if dataset == "lasot" and visible is None:
        raise ValueError("`visible` is None; on LaSOT it must say of each frame whether the object can be seen.")
    _check_pytracking(boxes, trues, dataset)
    boxes = _fit_length(_repeat_last(boxes, trues), len(trues), dataset)
    boxes[0] = trues[0]
    seen = torch.ones(len(trues), dtype=torch.bool) if visible is None else torch.as_tensor(visible).bool()
    valid = (trues > 0).all(-1) & seen

    # Sides include their last pixel; the ones cancel but for rounding.
    corner = torch.maximum(boxes[:, :2], trues[:, :2])
    far = torch.minimum(boxes[:, :2] + boxes[:, 2:] - 1, trues[:, :2] + trues[:, 2:] - 1)
    inter = (far - corner + 1).clamp(min=0).prod(-1)
    overlap = inter / (boxes[:, 2:].prod(-1) + trues[:, 2:].prod(-1) - inter)
    center = (_centers(boxes) - _centers(trues)).square().sum(-1).sqrt()
    sides = trues[:, 2:]
    normalized = (_centers(boxes) / sides - _centers(trues) / sides).square().sum(-1).sqrt()

    overlap[~valid] = -1
    center[~valid] = -1 if dataset == "uav" else float("inf")
    normalized[~valid] = -1
    if dataset == "lasot":
        center[~seen] = normalized[~seen] = float("inf")
    if bool(overlap.isnan().any()):
        raise ValueError(f"The overlap of frame {int(overlap.isnan().nonzero()[0])} is NaN; the official code stops.")
    return PyTrackingErrors(overlap, center, normalized, valid)


def _centers(boxes: Tensor) -> Tensor:
    """Return the centres ``(..., 2)`` of boxes whose last pixel belongs to them."""
    return boxes[..., :2] + (boxes[..., 2:] - 1) / 2


def _check_pytracking(boxes: Tensor, trues: Tensor, dataset: PyTrackingDataset) -> None:
    """Refuse the boxes at which pytracking stops."""
    wrong = boxes.isnan().any(-1) | (boxes[:, 2:] < 0).any(-1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"`prediction[{row}]` is {boxes[row].tolist()}; pytracking takes no NaN and no negative side.")
    if dataset != "uav" and bool(trues.isnan().any()):
        row = int(trues.isnan().any(-1).nonzero()[0])
        raise ValueError(f"`target[{row}]` is {trues[row].tolist()}; pytracking takes NaN on UAV123 only.")


def _repeat_last(boxes: Tensor, trues: Tensor) -> Tensor:
    """Replace every box without area by the one before."""
    boxes = boxes.clone()
    empty = (boxes[:, 2:] == 0).any(-1)
    for frame in range(1, len(boxes)):
        # A true box of NaN stops the repetition. Past the last true box the official code fails; those are cut anyway.
        if bool(empty[frame]) and not (frame < len(trues) and bool(trues[frame].isnan().any())):
            boxes[frame] = boxes[frame - 1]
    return boxes


def _fit_length(boxes: Tensor, length: int, dataset: PyTrackingDataset) -> Tensor:
    """Cut a prediction that is too long, fill up one that is too short."""
    if dataset == "lasot" and len(boxes) < length:
        raise ValueError(f"`prediction` has {len(boxes)} boxes for {length} frames; on LaSOT every frame needs one.")
    missing = boxes.new_zeros(max(0, length - len(boxes)), 4)
    return torch.cat([boxes[:length], missing])
