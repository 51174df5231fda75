"""Advantages: how much better than its group each trajectory was. No credit between agents (credit.py), no loss.

A missing reward is NaN: it takes no part in its group's statistics and gets advantage 0. Groups are given by an id per
row, so they may be uneven and stand in any order. Weights by difficulty are in difficulty.py, rewards per turn in
turns.py, the statistics in groups.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from m1lite.rl.groups import GroupStats, std_of

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
    stats = GroupStats(rewards, group)
    advantages = stats.values - stats.mean
    if scale == "std":
        advantages = advantages / (stats.std + eps)
    elif scale == "batch":
        advantages = advantages / (std_of(stats.values[stats.known]) + eps)
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
    stats = GroupStats(rewards, group)
    advantages = (stats.values - stats.mean) * stats.count / (stats.count - 1)
    return torch.where(stats.varies, advantages, 0.0).to(rewards.dtype)


def reinforce_pp(rewards: Tensor, group: Tensor, *, baseline: bool = False, eps: float = 1e-4) -> Tensor:
    r"""Normalise over the whole batch instead of over the group.

    .. math:: A_i = \frac{b_i - \mathrm{mean}(b)}{\mathrm{std}(b) + \epsilon}, \quad
        b_i = r_i \ \text{or, with a baseline, } r_i - \mu_{g(i)}

    Without a baseline also a group of one, or of equal rewards, teaches: it is compared with the rest of the batch.

    Args:
        rewards: float ``(N,)``; NaN where there is none.
        group: long ``(N,)``, any id per group; read with ``baseline`` only.
        baseline: take the mean of the group off first.
        eps: added to the std.

    Returns:
        ``(N,)`` in the dtype of ``rewards``. Exactly 0 for a missing reward and where all rewards of the batch are
        equal; with a baseline 0 where :func:`group_advantages` is.

    References:
        REINFORCE++: Hu et al. 2025, arXiv:2501.03262, section 3; its KL term in the reward is
        ``divergences.penalised_rewards``. The std is the unbiased one with 1e-4 added, as elsewhere here.

    Example:
        >>> reinforce_pp(torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1]))
        tensor([ 0.4999, -1.4997,  0.4999,  0.4999])
    """
    stats = GroupStats(rewards, group if baseline else torch.zeros_like(group))
    values = torch.where(stats.known, stats.values - stats.mean, 0.0)  # over the batch, or over the group
    known = values[stats.known]
    if len(known):
        values = (values - known.mean()) / (std_of(known) + eps)
    return torch.where(stats.varies, values, 0.0).to(rewards.dtype)


def gdpo_advantages(
    rewards: Tensor, group: Tensor, *, weights: Sequence[float] | None = None, eps: float = 1e-4
) -> Tensor:
    r"""Normalise each term within its group, add the terms up, and normalise the sum over the batch.

    .. math:: z_{ij} = \frac{r_{ij} - \mu_{g(i),j}}{\sigma_{g(i),j} + \epsilon}, \quad s_i = \sum_j w_j z_{ij}, \quad
        A_i = \frac{s_i - \mathrm{mean}(s)}{\mathrm{std}(s) + \epsilon}

    A term of small spread then counts as much as one of large spread, where the std of the sum would drown it.

    Args:
        rewards: float ``(N, J)``, J terms per trajectory; NaN where a term is missing, which is left out of the sum.
        group: long ``(N,)``, any id per group.
        weights: J numbers; None: 1 each.
        eps: added to the stds.

    Returns:
        ``(N,)`` in the dtype of ``rewards``. Exactly 0 for a row whose terms are all missing, or equal to those of the
        rest of the group.

    Raises:
        ValueError: if the shapes do not fit.

    References:
        GDPO: arXiv:2601.05242, the decoupled advantage.

    Example:
        >>> terms = torch.tensor([[1.0, 0.0], [0.0, 0.1], [0.0, 0.0]])  # the small term counts as much as the large
        >>> gdpo_advantages(terms, torch.tensor([0, 0, 0]))
        tensor([ 0.5786,  0.5759, -1.1546])
    """
    if rewards.ndim != 2:
        raise ValueError(f"`rewards` has shape {tuple(rewards.shape)}; it must be (N, J), one column per term.")
    weights = [1.0] * rewards.shape[1] if weights is None else list(weights)
    if len(weights) != rewards.shape[1]:
        raise ValueError(f"`weights` has {len(weights)} numbers for {rewards.shape[1]} terms; give one for each.")
    totals = torch.zeros(len(rewards), dtype=torch.float64, device=rewards.device)
    for weight, column in zip(weights, rewards.double().unbind(1), strict=True):
        totals = totals + weight * group_advantages(column, group, scale="std", eps=eps)
    known = ~rewards.isnan().all(1)
    if bool(known.any()):
        scaled = (totals - totals[known].mean()) / (std_of(totals[known]) + eps)
        totals = torch.where(known & (totals != 0), scaled, 0.0)
    return totals.to(rewards.dtype)


def pass_at_k_advantages(rewards: Tensor, group: Tensor, *, k: int, threshold: float = 0.5) -> Tensor:
    r"""Reward what lets k tries together hold a right one, so that easy questions stop paying and hard ones pay more.

    Of n replies to a question m fail. Every k of them form a try that is right if one of them is; a reply gets the mean
    over the tries it is part of, normalised over all tries:

    .. math::
        \bar R = 1 - \tbinom{m}{k} / \tbinom{n}{k}, \quad \sigma = \sqrt{\bar R (1 - \bar R)}, \quad
        A^{+} = \frac{1 - \bar R}{\sigma}, \quad
        A^{-} = \frac{1 - \bar R - \binom{m - 1}{k - 1} / \binom{n - 1}{k - 1}}{\sigma}

    Args:
        rewards: float ``(N,)``; NaN where there is none.
        group: long ``(N,)``, any id per group.
        k: tries, at least 1; 1 is the group advantage of rewards 0 and 1 with the population std.
        threshold: a reply passes whose reward is at least this.

    Returns:
        ``(N,)`` in the dtype of ``rewards``. 0 for a missing reward, for a group with fewer than k rewards, and where
        every try or none is right.

    Raises:
        ValueError: if ``k`` is below 1.

    References:
        Pass@k training: Chen et al. 2025, arXiv:2508.10751, the analytical derivation.

    Example:
        >>> pass_at_k_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.long), k=2)
        tensor([ 1.0000, -0.3333, -0.3333, -0.3333])
    """
    if k < 1:
        raise ValueError(f"`k` is {k}; it must be at least 1.")
    stats = GroupStats(rewards, group)
    passed = stats.known & (stats.values >= threshold)
    counts, failures = stats.count, stats.total((stats.known & ~passed).double())
    cells: dict[tuple[int, int], tuple[float, float]] = {}
    result = []
    rows = zip(counts.tolist(), failures.tolist(), stats.known.tolist(), passed.tolist(), strict=True)
    for count, failed, known, right in rows:
        cell = (int(count), int(failed))
        if cell not in cells:
            cells[cell] = _pass_at_k_cell(*cell, k)
        result.append(cells[cell][right] if known else 0.0)
    return torch.tensor(result, dtype=rewards.dtype, device=rewards.device)


def _pass_at_k_cell(count: int, failed: int, k: int) -> tuple[float, float]:
    """Advantage of a failed and of a right reply in a group of ``count``."""
    missed = math.comb(failed, k) / math.comb(count, k) if count >= k else 0.0
    if not 0 < missed < 1:
        return 0.0, 0.0
    spread = math.sqrt(missed * (1 - missed))
    return (missed - math.comb(failed - 1, k - 1) / math.comb(count - 1, k - 1)) / spread, missed / spread


def per_agent(rewards: Tensor, group: Tensor, advantage: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Form the advantages of every agent by itself.

    Args:
        rewards: float ``(E, A)``, one reward per episode and agent; NaN where there is none. Or ``(E, A, X)``, several
            rewards of each agent (per turn, per term), where ``advantage`` takes ``(E, X)``.
        group: long ``(E,)``, which sample each episode belongs to.
        advantage: for example ``partial(group_advantages, scale="std")``.

    Returns:
        ``(E, A)``, or ``(E, A, U)`` where ``advantage`` gives one per turn.

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
    stats = GroupStats(rewards, group)
    known = stats.values[stats.known]
    return {
        "reward": known.mean().item(),
        "reward_std": std_of(known).item(),
        "frac_reward_zero_std": (~stats.varies[stats.known]).double().mean().item(),
    }
