"""Grounded question answering: a right answer counts where its evidence fits too. Overlaps stand in grounding.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float, check_same_shape
from m1lite.metrics.functional.grounding import temporal_iou

if TYPE_CHECKING:
    from collections.abc import Callable


def grounded_answer_score(overlap: Tensor, right: Tensor, *, threshold: float = 0.5, strict: bool = False) -> Tensor:
    r"""Score 1 where the answer is right and the evidence given for it overlaps the true one enough.

    .. math:: \mathbb 1[\text{answer is right}] \cdot \mathbb 1[\text{overlap} \ge \text{threshold}]

    Args:
        overlap: ``(...)``, how well the predicted evidence fits: :func:`best_overlap` by IoP (NExT-GQA) or by IoU
            (ReXTime), :func:`temporal_set_iou` (CG-Bench). NaN for no evidence. Compared in its own dtype; integers and
            half precision are cast to float32.
        right: ``(...)``, 1 or true where the answer is right (see :func:`choice_match`); NaN for no answer.
        threshold: overlap from which the evidence counts.
        strict: the overlap must lie *above* the threshold.

    Returns:
        ``(...)``, 1 or 0, of the dtype of ``overlap``; 0 without evidence or without an answer.

    Raises:
        ValueError: if the shapes differ.

    References:
        Xiao et al. 2024, arXiv:2309.01327 (NExT-GQA), section 5.1, Acc@GQA.

    Example:
        >>> grounded_answer_score(torch.tensor([0.5, 0.9, 0.2]), torch.tensor([True, False, True]))
        tensor([1., 0., 0.])
    """
    check_same_shape(overlap, right)
    overlap = as_float(overlap)
    bound = torch.tensor(threshold, dtype=overlap.dtype, device=overlap.device)
    grounded = overlap > bound if strict else overlap >= bound
    return (grounded & (right == 1)).to(overlap.dtype)


def best_overlap(
    prediction: Tensor, target: Tensor, *, overlap: Callable[[Tensor, Tensor], Tensor] = temporal_iou
) -> Tensor:
    r"""Overlap of a span with the true span that it fits best.

    .. math:: \max(0, \max_t \mathrm{overlap}(\hat S, S_t))

    Args:
        prediction: ``(..., 2)``, start and end in one unit (seconds); NaN for no answer. Integers and half precision
            are cast to float32.
        target: ``(..., T, 2)``, the true spans in the same unit; a row with NaN is padding.
        overlap: of one span with one true span, such as :func:`temporal_iou` or :func:`temporal_iop`.

    Returns:
        ``(...)``; 0 for no answer, where nothing overlaps, and without true spans.

    Raises:
        ValueError: if the last dimension is not 2.

    Example:
        >>> best_overlap(torch.tensor([0.0, 4.0]), torch.tensor([[3.0, 9.0], [1.0, 5.0]]))
        tensor(0.6000)
    """
    scores = overlap(as_float(prediction)[..., None, :], as_float(target)).nan_to_num(0.0).clamp(min=0)  # (..., T)
    return scores.amax(-1) if scores.shape[-1] else scores.sum(-1)
