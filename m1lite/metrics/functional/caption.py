"""Captions as events: precision, recall and F1 from flags that say which events hold. Who sets the flags is open."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float, check_same_shape


class EventScores(NamedTuple):
    """One row per sample, each in [0, 1]."""

    precision: Tensor
    """Share of the predicted events that hold."""
    recall: Tensor
    """Share of the true events that the prediction tells."""
    f1: Tensor
    """Harmonic mean of the two; 0 where both are 0."""


def event_scores(
    predicted: Tensor,
    target: Tensor,
    *,
    predicted_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
) -> EventScores:
    r"""Precision, recall and F1 of described events.

    .. math::
        P = \#\text{entailed} / \#\text{predicted}, \quad R = \#\text{told} / \#\text{true}, \quad F_1 = 2PR / (P + R)

    Args:
        predicted: bool ``(..., P)``, whether each predicted event follows from the truth; or a float in [0, 1], such as
            the probability that it does.
        target: likewise ``(..., T)``, whether each true event follows from the prediction.
        predicted_mask: bool ``(..., P)``, false on padding; None: nothing is padding.
        target_mask: bool ``(..., T)``, false on padding; None: nothing is padding.

    Returns:
        Three ``(...)``, float64 for flags in float64 and else float32. A side without events scores 1 (nothing wrong
        was said, nothing was left out).

    Raises:
        ValueError: if a mask does not have the shape of its flags, or the two sides differ in samples.

    References:
        Wang et al. 2024, arXiv:2407.00634 (DREAM-1K), AutoDQ. That benchmark takes the F1 of the *mean* precision and
        recall; the one here is per sample.

    Example:
        >>> event_scores(torch.tensor([[True, False]]), torch.tensor([[True, False, False, False]]))
        EventScores(precision=tensor([0.5000]), recall=tensor([0.2500]), f1=tensor([0.3333]))
    """
    if predicted.shape[:-1] != target.shape[:-1]:
        raise ValueError(
            f"`predicted` has shape {tuple(predicted.shape)} and `target` {tuple(target.shape)}; all but the last "
            "dimension must be equal."
        )
    precision, recall = _share(predicted, predicted_mask), _share(target, target_mask)
    return EventScores(precision, recall, harmonic_mean(precision, recall))


def harmonic_mean(precision: Tensor, recall: Tensor) -> Tensor:
    """F1 of a precision and a recall of one shape; 0 where both are 0."""
    total = precision + recall
    return torch.where(total == 0, 0.0, 2 * precision * recall / total)


def _share(flags: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of the flags inside the mask, 1 where the mask is empty."""
    if mask is None:
        mask = torch.ones_like(flags, dtype=torch.bool)
    check_same_shape(flags, mask)
    count = mask.sum(-1)
    total = torch.where(mask.bool(), as_float(flags), 0.0).sum(-1)
    return torch.where(count > 0, total / count.clamp(min=1), 1.0)
