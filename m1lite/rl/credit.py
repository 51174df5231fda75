"""Credit assignment: a team reward and each agent's own reward to the reward that each agent learns from.

No baselines here, see advantages.py. The functions share one signature so that a configuration can pass any of them;
all work on ``(E, A)`` rewards per episode and agent, and on ``(E, A, U)`` where rewards are given per turn.
"""

from __future__ import annotations

from torch import Tensor


def own(agent_rewards: Tensor, team_rewards: Tensor) -> Tensor:
    """Let every agent learn from its own reward only.

    Args:
        agent_rewards: float ``(E, A)`` or ``(E, A, U)``; NaN where there is none.
        team_rewards: float ``(E,)``; not read.

    Returns:
        ``agent_rewards``.

    References:
        Our reading of VideoChat-M1 (arXiv:2511.19524): the reward is a sum of terms of each agent.
    """
    _check(agent_rewards, team_rewards)
    return agent_rewards


def team(agent_rewards: Tensor, team_rewards: Tensor) -> Tensor:
    """Let every agent learn from the team's reward only.

    Args:
        agent_rewards: float ``(E, A)`` or ``(E, A, U)``; gives the shape.
        team_rewards: float ``(E,)``; NaN where there is none.

    Returns:
        The team's reward in the shape of ``agent_rewards``.
    """
    _check(agent_rewards, team_rewards)
    trailing = (1,) * (agent_rewards.ndim - 1)
    return team_rewards.reshape(-1, *trailing).expand_as(agent_rewards)


def mixed(agent_rewards: Tensor, team_rewards: Tensor, *, team_share: float) -> Tensor:
    r"""Interpolate between an agent's own reward and the team's.

    .. math:: r_{e,a} = (1 - \lambda)\, r^{own}_{e,a} + \lambda\, r^{team}_e

    Args:
        agent_rewards: float ``(E, A)`` or ``(E, A, U)``; NaN where there is none.
        team_rewards: float ``(E,)``; NaN where there is none.
        team_share: lambda in [0, 1]; 0 equals :func:`own`, 1 equals :func:`team`.

    Returns:
        The shape of ``agent_rewards``; NaN where a reward that enters with a share above 0 is missing.

    Raises:
        ValueError: if ``team_share`` is outside [0, 1] or the shapes do not fit.

    Example:
        >>> import torch
        >>> mixed(torch.tensor([[1.0, 0.0]]), torch.tensor([-1.0]), team_share=0.25)
        tensor([[ 0.5000, -0.2500]])
    """
    if not 0 <= team_share <= 1:
        raise ValueError(f"`team_share` is {team_share}; it must be in [0, 1], 0 for own rewards only.")
    if team_share == 0:
        return own(agent_rewards, team_rewards)
    if team_share == 1:
        return team(agent_rewards, team_rewards)
    return (1 - team_share) * agent_rewards + team_share * team(agent_rewards, team_rewards)


def _check(agent_rewards: Tensor, team_rewards: Tensor) -> None:
    if agent_rewards.ndim < 2 or team_rewards.shape != agent_rewards.shape[:1]:
        raise ValueError(
            "`agent_rewards` must be (episodes, agents, ...) and `team_rewards` (episodes,), got "
            f"{tuple(agent_rewards.shape)} and {tuple(team_rewards.shape)}."
        )
