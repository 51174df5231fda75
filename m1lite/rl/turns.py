"""Rewards per turn: what is still to come, a gate on what was earned on the way, advantages with groups of their own.

Rewards are ``(..., U)`` over the turns of an agent, U of the longest; NaN where there is no such turn, or no reward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def discounted_returns(rewards: Tensor, *, discount: float) -> Tensor:
    r"""Credit each turn with its own reward and those that followed, the later the less.

    .. math:: G_u = r_u + \gamma\, G_{u+1}

    Args:
        rewards: float ``(..., U)``; NaN where there is none, which adds nothing.
        discount: gamma in [0, 1] per turn; 0 is the turn's own reward, 1 the plain sum.

    Returns:
        The shape of ``rewards``; NaN where neither the turn nor any later one has a reward.

    Raises:
        ValueError: if the discount is outside [0, 1].

    References:
        Video-MTR, arXiv:2508.20478, uses 0.95 over turns, and 1 within a turn.

    Example:
        >>> discounted_returns(torch.tensor([0.0, 1.0, 2.0, float("nan")]), discount=0.5)
        tensor([1., 2., 2., nan])
    """
    if not 0 <= discount <= 1:
        raise ValueError(f"`discount` is {discount}; it must be in [0, 1], 1 for the plain sum of what follows.")
    returns = torch.empty_like(rewards)
    following = torch.full(rewards.shape[:-1], float("nan"), dtype=rewards.dtype, device=rewards.device)
    for turn in range(rewards.shape[-1] - 1, -1, -1):
        here = rewards[..., turn]
        known = ~(here.isnan() & following.isnan())
        following = torch.where(known, here.nan_to_num(0.0) + discount * following.nan_to_num(0.0), float("nan"))
        returns[..., turn] = following
    return returns


def gated_bilevel(turn_rewards: Tensor, answer_rewards: Tensor) -> Tensor:
    r"""Pay what was earned on the way only where the answer is right; the answer's own turn is always paid.

    .. math:: R(\tau) = \mathbb 1[R_{acc} > 0] \sum_{k<K} r_k + R_{acc} + r_K

    Spread over the turns: the gated :math:`r_k` to each turn before the last, the rest to the last one.

    Args:
        turn_rewards: float ``(..., U)``, of each turn up to the answer's, K, the last that is not NaN.
        answer_rewards: float ``(...)``; NaN where there is none.

    Returns:
        The shape of ``turn_rewards``; all NaN where the answer has no reward.

    Raises:
        ValueError: if the shapes do not fit.

    References:
        Video-MTR, arXiv:2508.20478: r_k the gain in frame IoU, capped at 0.5, and 0.1 for the format; r_K the format.

    Example:
        >>> turns = torch.tensor([[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]])
        >>> gated_bilevel(turns, torch.tensor([1.0, 0.0]))
        tensor([[0.3000, 0.2000, 1.1000],
                [0.0000, 0.0000, 0.1000]])
    """
    if answer_rewards.shape != turn_rewards.shape[:-1]:
        raise ValueError(
            f"`answer_rewards` has shape {tuple(answer_rewards.shape)}; it must be {tuple(turn_rewards.shape[:-1])}, "
            "one for the turns of each trajectory."
        )
    known = ~turn_rewards.isnan()
    places = torch.arange(1, turn_rewards.shape[-1] + 1, device=turn_rewards.device)
    last = known & (places == (known * places).amax(-1, keepdim=True))
    answers = answer_rewards[..., None]
    paid = torch.where(last, turn_rewards + answers, turn_rewards * (answers > 0))
    return torch.where(answers.isnan(), float("nan"), paid)


def turn_advantages(
    rewards: Tensor, group: Tensor, *, advantage: Callable[[Tensor, Tensor], Tensor], by_turn: bool = True
) -> Tensor:
    """Form the advantage of every turn of one agent.

    Args:
        rewards: float ``(E, U)``, one per episode and turn; NaN where there is none.
        group: long ``(E,)``, which sample each episode belongs to.
        advantage: rewards and group ids, both ``(N,)``, to ``(N,)``: for example ``group_advantages``.
        by_turn: compare a turn with the same turn of the group's other episodes; otherwise with all turns of the group.

    Returns:
        ``(E, U)``, 0 where there is no reward.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> from m1lite.rl.advantages import group_advantages
        >>> rewards = torch.tensor([[1.0, 4.0], [0.0, float("nan")]])
        >>> turn_advantages(rewards, torch.tensor([0, 0]), advantage=group_advantages)
        tensor([[ 0.5000,  0.0000],
                [-0.5000,  0.0000]])
        >>> turn_advantages(rewards, torch.tensor([0, 0]), advantage=group_advantages, by_turn=False)
        tensor([[-0.6667,  2.3333],
                [-1.6667,  0.0000]])
    """
    if rewards.ndim != 2 or group.shape != rewards.shape[:1]:
        raise ValueError(
            f"`rewards` and `group` have shapes {tuple(rewards.shape)} and {tuple(group.shape)}; they must be (E, U) "
            "and (E,)."
        )
    if not by_turn:
        spread = group[:, None].expand_as(rewards)
        return advantage(rewards.reshape(-1), spread.reshape(-1)).reshape(rewards.shape)
    if not rewards.shape[1]:
        return torch.zeros_like(rewards)
    return torch.stack([advantage(column, group) for column in rewards.unbind(1)], dim=1)
