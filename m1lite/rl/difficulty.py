"""DGRPO: rewards rescaled by the task's range, and groups weighted by how hard they are.

Both parts stand alone; the group advantage that they go with is in advantages.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from m1lite.rl.advantages import group_advantages
from m1lite.rl.groups import GroupStats

if TYPE_CHECKING:
    from torch import Tensor


def scaled_accuracy(values: Tensor, *, low: float = 0.0, high: float = 0.7) -> Tensor:
    r"""Stretch the part of a score's range that the task can reach to [0, 1].

    .. math:: \mathrm{Scale}(r) = \mathrm{clamp}\Big(\frac{r - \alpha}{\beta - \alpha}, 0, 1\Big)

    Meant for the IoU of temporal grounding; other tasks keep their accuracy as it is. In a group of such scores alone
    the normalisation undoes the stretch, and only the clamp is left of it.

    Args:
        values: float, any shape; NaN stays NaN.
        low: alpha, from here on a score counts. No source gives it or ``high``; the defaults are our reading.
        high: beta, a score from here on is full.

    Returns:
        In [0, 1], shape and dtype of ``values``.

    Raises:
        ValueError: unless ``low`` is below ``high``.

    References:
        VITAL (Thinking With Videos), arXiv:2508.04416, algorithm 1.

    Example:
        >>> scaled_accuracy(torch.tensor([0.1, 0.4, 0.9]), low=0.2, high=0.6)
        tensor([0.0000, 0.5000, 1.0000])
    """
    if not low < high:
        raise ValueError(f"`low` is {low} and `high` {high}; they must be low < high.")
    return ((values - low) / (high - low)).clamp(0, 1)


def difficulty_weight(rewards: Tensor, group: Tensor) -> Tensor:
    r"""Weigh a group down when its mean reward says that it is easy.

    .. math:: w_i = 0.5 \cdot \mathrm{clamp}(2 - \mu_{g(i)}, 0, 1) + 0.5 \in [0.5, 1]

    Args:
        rewards: float ``(N,)``, the summed reward, meant for terms in [0, 1] each; NaN where there is none.
        group: long ``(N,)``, any id per group.

    Returns:
        ``(N,)`` in the dtype of ``rewards``; 1 for a group without any reward.

    References:
        VITAL (Thinking With Videos), arXiv:2508.04416, algorithm 1.

    Example:
        >>> difficulty_weight(torch.tensor([1.0, 2.0, 2.5, 2.5]), torch.tensor([0, 0, 1, 1]))
        tensor([0.7500, 0.7500, 0.5000, 0.5000])
    """
    stats = GroupStats(rewards, group)
    weight = 0.5 * (2 - stats.mean).clamp(0, 1) + 0.5
    return torch.where(stats.count > 0, weight, 1.0).to(rewards.dtype)


def dgrpo_advantages(
    rewards: Tensor, group: Tensor, *, scale: Literal["none", "std", "batch"] = "std", eps: float = 1e-4
) -> Tensor:
    """Group advantages times the difficulty weight of the group.

    The paper multiplies the *reward*; the weight is one number per group, so the division by the group's std cancels
    it. Our reading applies it after the normalisation, where it has its effect.

    Args:
        rewards: float ``(N,)``; NaN where there is none.
        group: long ``(N,)``, any id per group.
        scale: as in :func:`group_advantages`.
        eps: as in :func:`group_advantages`.

    Returns:
        ``(N,)`` in the dtype of ``rewards``.

    References:
        VITAL (Thinking With Videos), arXiv:2508.04416, algorithm 1.

    Example:
        >>> dgrpo_advantages(torch.tensor([1.0, 2.0]), torch.tensor([0, 0]), scale="none")
        tensor([-0.3750,  0.3750])
    """
    return group_advantages(rewards, group, scale=scale, eps=eps) * difficulty_weight(rewards, group)
