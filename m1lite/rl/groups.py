"""Statistics of rewards by group, spread back over the rows; what advantages are made of.

A missing reward is NaN and takes no part. Groups are given by an id per row, so they may be uneven and stand in any
order. Everything is formed in float64 whatever the dtype of the rewards.
"""

from __future__ import annotations

import torch
from torch import Tensor


class GroupStats:
    """Group mean, unbiased std and count, spread back over the rows in float64.

    Args:
        rewards: float ``(N,)``; NaN where there is none.
        group: long ``(N,)``, any id per group.

    Raises:
        ValueError: if the shapes differ or a reward is infinite.

    Example:
        >>> GroupStats(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1])).mean
        tensor([2., 2., 5.], dtype=torch.float64)
    """

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
        self.values = torch.where(self.known, rewards.double(), 0.0)
        """(N,): the rewards, 0 where missing."""
        names, rows = torch.unique(group, return_inverse=True)
        self._num_groups, self._rows = len(names), rows
        self.count = self.total(self.known.double())
        """(N,): known rewards of the row's group."""
        self.mean = self.total(self.values) / self.count.clamp(min=1)
        """(N,): 0 for a group without any."""
        deviation = torch.where(self.known, self.values - self.mean, 0.0)
        self.std = (self.total(deviation.square()) / (self.count - 1).clamp(min=1)).sqrt()
        """(N,): with Bessel's correction; 0 for a group of one."""
        # Equal rewards can differ from their own rounded mean, so equality is asked of the rewards themselves.
        infinity = torch.full((len(names),), float("inf"), dtype=torch.float64, device=rewards.device)
        lowest = infinity.scatter_reduce(0, rows, torch.where(self.known, self.values, float("inf")), "amin")[rows]
        highest = (-infinity).scatter_reduce(0, rows, torch.where(self.known, self.values, float("-inf")), "amax")[rows]
        self.varies = self.known & (highest > lowest)
        """bool (N,): the reward is known and its group's known rewards are not all equal."""

    def total(self, values: Tensor) -> Tensor:
        """Add up values ``(N,)`` over each group, and give every row the sum of its group."""
        return values.new_zeros(self._num_groups).index_add_(0, self._rows, values)[self._rows]


def std_of(values: Tensor) -> Tensor:
    """Unbiased std of a 1-D tensor, 0 for fewer than two values."""
    return values.std() if len(values) > 1 else values.new_zeros(())
