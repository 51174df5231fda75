"""Advantages: how much better than its group each trajectory was. No credit between agents (credit.py), no loss.

A missing reward is NaN: it takes no part in its group's statistics and gets advantage 0. Groups are given by an id per
row, so they may be uneven and stand in any order. Statistics are formed in float64 whatever the dtype of the rewards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def reward_tensor(values: Sequence[float | None]) -> Tensor:
    """Write rewards as a tensor in which a missing one is NaN.

    Returns:
        float32 ``(N,)``.

    Example:
        >>> reward_tensor([1.0, None])
        tensor([1., nan])
    """
    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float32)


def group_advantages(
    rewards: Tensor, group: Tensor, *, scale: Literal["none", "std", "batch"] = "none", eps: float = 1e-4
) -> Tensor:
    r"""Center each reward on the mean of its group, and scale it.

    .. math:: A_i = (r_i - \mu_{g(i)}) / s, \quad s \in \{1,\ \sigma_{g(i)} + \epsilon,\ \sigma + \epsilon\}

    Args:
        rewards: float ``(N,)``, one scalar per trajectory; NaN where there is none.
        group: long ``(N,)``, any id per group (the K episodes of one sample, for one agent).
        scale: ``"none"`` keeps the units of the reward (Dr. GRPO); ``"std"`` divides by the std of the group (GRPO);
            ``"batch"`` by the std of all rewards.
        eps: added to the std.

    Returns:
        ``(N,)`` in the dtype of ``rewards``. Exactly 0 for a missing reward, for a group with one reward, and for a
        group of equal rewards.

    Raises:
        ValueError: if the shapes differ, a reward is infinite, or ``scale`` is not one of the three.

    References:
        GRPO: Shao et al. 2024, arXiv:2402.03300, section 4.1. Dr. GRPO: Liu et al. 2025, arXiv:2503.20783, section 3.2.
        The std is the unbiased one with 1e-4 added, as VideoChat-R1's code and TRL have it.

    Example:
        >>> group_advantages(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]))
        tensor([ 0.5000, -0.5000,  0.0000])
    """
    if scale not in ("none", "std", "batch"):
        raise ValueError(f"`scale` is {scale!r}; it must be 'none', 'std' or 'batch'.")
    stats = _GroupStats(rewards, group)
    advantages = stats.values - stats.mean
    if scale == "std":
        advantages = advantages / (stats.std + eps)
    elif scale == "batch":
        advantages = advantages / (_std(stats.values[stats.known]) + eps)
    return torch.where(stats.varies, advantages, 0.0).to(rewards.dtype)


def leave_one_out(rewards: Tensor, group: Tensor) -> Tensor:
    r"""Center each reward on the mean of the *others* of its group.

    .. math:: A_i = r_i - \frac{1}{n - 1} \sum_{j \neq i} r_j = \frac{n}{n - 1} (r_i - \mu)

    Args:
        rewards: float ``(N,)``; NaN where there is none.
        group: long ``(N,)``, any id per group.

    Returns:
        ``(N,)`` in the dtype of ``rewards``; 0 where :func:`group_advantages` is 0.

    References:
        RLOO: Ahmadian et al. 2024, arXiv:2402.14740.

    Example:
        >>> leave_one_out(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0, 0, 0]))
        tensor([ 0.7500, -0.7500,  0.0000])
    """
    stats = _GroupStats(rewards, group)
    advantages = (stats.values - stats.mean) * stats.count / (stats.count - 1)
    return torch.where(stats.varies, advantages, 0.0).to(rewards.dtype)


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
    stats = _GroupStats(rewards, group)
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


def per_agent(rewards: Tensor, group: Tensor, advantage: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Form the advantages of every agent by itself.

    Args:
        rewards: float ``(E, A)``, one reward per episode and agent; NaN where there is none.
        group: long ``(E,)``, which sample each episode belongs to.
        advantage: for example ``partial(group_advantages, scale="std")``.

    Returns:
        ``(E, A)``.

    Example:
        >>> per_agent(torch.tensor([[1.0, 4.0], [0.0, 2.0]]), torch.tensor([7, 7]), group_advantages)
        tensor([[ 0.5000,  1.0000],
                [-0.5000, -1.0000]])
    """
    return torch.stack([advantage(column, group) for column in rewards.unbind(1)], dim=1)


def reward_stats(rewards: Tensor, group: Tensor) -> dict[str, float]:
    """Summarise the rewards of one agent for the log.

    Args:
        rewards: float ``(N,)``; NaN where there is none.
        group: long ``(N,)``, any id per group.

    Returns:
        ``reward`` (mean), ``reward_std`` (unbiased, over all rewards), ``frac_reward_zero_std`` (share of the
        rewards whose group teaches nothing). NaN where no reward is known.

    Example:
        >>> reward_stats(torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1]))
        {'reward': 0.75, 'reward_std': 0.5, 'frac_reward_zero_std': 0.5}
    """
    stats = _GroupStats(rewards, group)
    known = stats.values[stats.known]
    return {
        "reward": known.mean().item(),
        "reward_std": _std(known).item(),
        "frac_reward_zero_std": (~stats.varies[stats.known]).double().mean().item(),
    }


def _std(values: Tensor) -> Tensor:
    """Unbiased std of a 1-D tensor, 0 for fewer than two values."""
    return values.std() if len(values) > 1 else values.new_zeros(())


class _GroupStats:
    """Group mean, unbiased std and count, spread back over the rows in float64."""

    def __init__(self, rewards: Tensor, group: Tensor) -> None:
        if rewards.ndim != 1 or rewards.shape != group.shape:
            raise ValueError(
                "`rewards` and `group` must be 1-D and of one length, got "
                f"{tuple(rewards.shape)} and {tuple(group.shape)}."
            )
        if bool(torch.isinf(rewards).any()):
            row = int(torch.isinf(rewards).nonzero()[0])
            raise ValueError(
                f"`rewards[{row}]` is {rewards[row].item()}; rewards must be finite, or NaN for a missing one."
            )
        self.known = ~torch.isnan(rewards)
        self.values = torch.where(self.known, rewards.double(), 0.0)  # (N,), 0 where missing
        names, rows = torch.unique(group, return_inverse=True)

        def total(values: Tensor) -> Tensor:
            return values.new_zeros(len(names)).index_add_(0, rows, values)[rows]

        self.count = total(self.known.double())
        self.mean = total(self.values) / self.count.clamp(min=1)
        deviation = torch.where(self.known, self.values - self.mean, 0.0)
        self.std = (total(deviation.square()) / (self.count - 1).clamp(min=1)).sqrt()
        # Equal rewards can differ from their own rounded mean, so equality is asked of the rewards themselves.
        infinity = torch.full((len(names),), float("inf"), dtype=torch.float64, device=rewards.device)
        lowest = infinity.scatter_reduce(0, rows, torch.where(self.known, self.values, float("inf")), "amin")[rows]
        highest = (-infinity).scatter_reduce(0, rows, torch.where(self.known, self.values, float("-inf")), "amax")[rows]
        self.varies = self.known & (highest > lowest)
