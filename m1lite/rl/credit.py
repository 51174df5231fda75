"""Credit assignment: a team reward and each agent's own reward to the reward that each agent learns from.

No baselines here, see advantages.py. Two steps, each a part that a configuration passes. What an agent has done for the
team: the team's reward itself ``(E,)``, or a counterfactual ``(E, A)``, :func:`difference_rewards` or
:func:`dropout_rewards`. And how that mixes with the agent's own reward: :func:`own`, :func:`team` or :func:`mixed`,
which work on ``(E, A)`` rewards per episode and agent, and on ``(E, A, X)`` where rewards are given per turn or term.
"""

from __future__ import annotations

import torch
from torch import Tensor


def own(agent_rewards: Tensor, team_rewards: Tensor) -> Tensor:
    """Let every agent learn from its own reward only.

    Args:
        agent_rewards: float ``(E, A)`` or ``(E, A, X)``; NaN where there is none.
        team_rewards: float ``(E,)``, or ``(E, A)`` for a counterfactual; not read.

    Returns:
        ``agent_rewards``.

    References:
        Our reading of VideoChat-M1 (arXiv:2511.19524): the reward is a sum of terms of each agent.
    """
    _check(agent_rewards, team_rewards)
    return agent_rewards


def team(agent_rewards: Tensor, team_rewards: Tensor) -> Tensor:
    """Let every agent learn from what it has done for the team only.

    Args:
        agent_rewards: float ``(E, A)`` or ``(E, A, X)``; gives the shape.
        team_rewards: float ``(E,)``, or ``(E, A)`` for a counterfactual; NaN where there is none.

    Returns:
        The team's reward in the shape of ``agent_rewards``.
    """
    _check(agent_rewards, team_rewards)
    trailing = (1,) * (agent_rewards.ndim - team_rewards.ndim)
    return team_rewards.reshape(*team_rewards.shape, *trailing).expand_as(agent_rewards)


def mixed(agent_rewards: Tensor, team_rewards: Tensor, *, team_share: float) -> Tensor:
    r"""Interpolate between an agent's own reward and the team's.

    .. math:: r_{e,a} = (1 - \lambda)\, r^{own}_{e,a} + \lambda\, r^{team}_e

    Args:
        agent_rewards: float ``(E, A)`` or ``(E, A, X)``; NaN where there is none.
        team_rewards: float ``(E,)``, or ``(E, A)`` for a counterfactual; NaN where there is none.
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


def difference_rewards(team_rewards: Tensor, without: Tensor) -> Tensor:
    r"""Credit each agent with what the team's reward owes to its vote.

    .. math:: D_{e,a} = G_e - G_e^{-a}

    Under voting the team's reward without one vote is known without another episode, so this is exact. An agent whose
    vote changed nothing gets exactly 0.

    Args:
        team_rewards: float ``(E,)``, with all votes; NaN where there is none.
        without: float ``(E, A)``, with agent a's vote left out; NaN where it is unknown.

    Returns:
        float ``(E, A)``.

    Raises:
        ValueError: if the shapes do not fit.

    References:
        Wolpert and Tumer 2001, Advances in Complex Systems 4, "wonderful life utility"; Foerster et al. 2018,
        arXiv:1705.08926, section 4.

    Example:
        >>> difference_rewards(torch.tensor([1.0]), torch.tensor([[1.0, -1.0]]))
        tensor([[0., 2.]])
    """
    _check(without, team_rewards)
    return team_rewards[:, None] - without


def dropout_rewards(team_rewards: Tensor, heard: Tensor, group: Tensor) -> Tensor:
    r"""Credit each agent with what episodes in which it was heard have over those in which agent dropout silenced it.

    .. math:: D_{e,a} = G_e - \frac{1}{|S_{g(e),a}|} \sum_{e' \in S_{g(e),a}} G_{e'}, \quad
        S_{g,a} = \{e' \in g : a \text{ was not heard}\}

    An estimate: unlike a vote, what an agent said to its peers cannot be taken back from an episode that was played, so
    other episodes stand in. They must differ in who was heard, which a topology that is drawn once per group does not
    give within the group; then let all episodes be one group, and the questions' difficulty adds noise, not bias.

    Args:
        team_rewards: float ``(E,)``; NaN where there is none.
        heard: bool ``(E, A)``, whether any peer could read the agent.
        group: long ``(E,)``, any id per group.

    Returns:
        float ``(E, A)``, NaN where the agent was not heard, or where no episode of the group had it silent.

    Raises:
        ValueError: if the shapes do not fit.

    References:
        Our reading: leave-one-out over the agents that agent dropout (VideoChat-M1, arXiv:2511.19524) takes away.

    Example:
        >>> heard = torch.tensor([[True], [False], [False]])
        >>> dropout_rewards(torch.tensor([1.0, 0.0, -1.0]), heard, torch.tensor([0, 0, 0]))
        tensor([[1.5000],
                [   nan],
                [   nan]])
    """
    _check(heard, team_rewards)
    if group.shape != team_rewards.shape:
        raise ValueError(f"`group` has shape {tuple(group.shape)}; it must be {tuple(team_rewards.shape)}.")
    names, rows = torch.unique(group, return_inverse=True)
    silent = ~heard & ~team_rewards.isnan()[:, None]  # (E, A)
    counts = silent.new_zeros(len(names), heard.shape[1], dtype=torch.float64).index_add_(0, rows, silent.double())
    values = torch.where(silent, team_rewards.double()[:, None], 0.0)
    sums = torch.zeros_like(counts).index_add_(0, rows, values)
    means = (sums / counts)[rows]  # 0 / 0 is NaN, as it should be
    return torch.where(heard, team_rewards.double()[:, None] - means, float("nan")).to(team_rewards.dtype)


def _check(agent_rewards: Tensor, team_rewards: Tensor) -> None:
    fits = team_rewards.ndim in (1, 2) and team_rewards.shape == agent_rewards.shape[: team_rewards.ndim]
    if agent_rewards.ndim < 2 or not fits:
        raise ValueError(
            "`agent_rewards` must be (episodes, agents, ...) and `team_rewards` (episodes,) or (episodes, agents), got "
            f"{tuple(agent_rewards.shape)} and {tuple(team_rewards.shape)}."
        )
