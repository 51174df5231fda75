"""Ordering: how well a predicted order of items (shuffled clips, steps of a procedure) matches the true one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class OrderScores(NamedTuple):
    """One value per sample."""

    exact: Tensor
    """1 where every place holds the right item and no place is too many, else 0."""
    step_accuracy: Tensor
    """Share of the true places that hold the right item, in [0, 1]."""
    kendall_tau: Tensor
    """Agreement of the order of pairs, in [-1, 1]."""


def order_score(prediction: Tensor, target: Tensor) -> OrderScores:
    r"""Score a predicted order of items.

    .. math::
        \mathrm{step} = \frac{1}{n} \sum_k \mathbb 1[\hat y_k = y_k], \quad
        \tau = \frac{\#\text{pairs in the true order} - \#\text{pairs in the reverse order}}{n (n - 1) / 2}

    Args:
        prediction: integer ``(..., P)``, the item at each place; negative for an empty place, so orders of different
            length are padded with -1 at the end, and no answer is all -1.
        target: integer ``(..., T)``, the true items in their order, each once; negative at the end for padding. ``P``
            may differ from ``T``; the leading shapes are equal.

    Returns:
        Three float32 ``(...)``. :math:`\tau` looks at the pairs of the true items: one with an item that the prediction
        lacks counts as neither, and of an item that is there twice the first place counts. No answer has :math:`\tau`
        0, which is also what chance gives; with fewer than two true items there are no pairs and :math:`\tau` is
        ``exact``. Without true items the step accuracy is ``exact`` too.

    Raises:
        TypeError: if either is not an integer tensor.
        ValueError: if the leading shapes differ, or a tensor has no dimension.

    References:
        Kendall 1938, "A new measure of rank correlation", Biometrika 30, 81-93; without missing or repeated items this
        is its tau of the two orders.

    Example:
        >>> scores = order_score(torch.tensor([[0, 1, 2], [1, 0, 2]]), torch.tensor([[0, 1, 2], [0, 1, 2]]))
        >>> scores.exact, scores.step_accuracy, scores.kendall_tau
        (tensor([1., 0.]), tensor([1.0000, 0.3333]), tensor([1.0000, 0.3333]))
    """
    _check(prediction, target)
    width = max(prediction.shape[-1], target.shape[-1])
    prediction, target = _padded(prediction, width), _padded(target, width)
    there = target >= 0
    right = prediction == target
    exact = right.all(-1).float()
    count = there.sum(-1)
    step = torch.where(count > 0, (right & there).sum(-1) / count.clamp(min=1), exact)
    pairs = count * (count - 1) / 2
    tau = torch.where(pairs > 0, _agreement(prediction, target) / pairs.clamp(min=1), exact)
    return OrderScores(exact, step, tau)


def _check(prediction: Tensor, target: Tensor) -> None:
    for name, values in (("prediction", prediction), ("target", target)):
        if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
            raise TypeError(f"`{name}` has dtype {values.dtype}; items are integers, -1 for an empty place.")
    if not prediction.ndim or not target.ndim or prediction.shape[:-1] != target.shape[:-1]:
        raise ValueError(
            f"`prediction` has shape {tuple(prediction.shape)} and `target` {tuple(target.shape)}; both hold places in "
            "the last dimension, and all before it must be equal."
        )


def _padded(items: Tensor, width: int) -> Tensor:
    """Write empty places as -1, and add some up to ``width``."""
    return torch.nn.functional.pad(items.clamp(min=-1), (0, width - items.shape[-1]), value=-1)


def _agreement(prediction: Tensor, target: Tensor) -> Tensor:
    """Pairs of true items in the true order less pairs in the reverse order, ``(..., K)`` twice to ``(...)``."""
    if not target.shape[-1]:
        return torch.zeros(target.shape[:-1], device=target.device)
    same = (target[..., :, None] == prediction[..., None, :]) & (target[..., :, None] >= 0)  # (..., item, place)
    place = same.int().argmax(-1)  # the first place
    found = same.any(-1)
    later = (place[..., None, :] - place[..., :, None]).sign()  # (..., i, j): 1 where j comes after i
    later = torch.where(found[..., None, :] & found[..., :, None], later, 0)
    return later.triu(1).sum((-2, -1)).float()
