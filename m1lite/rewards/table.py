"""What is learnt from, as tensors: each agent's own rewards, and what it has done for the team.

The records are compose.py's and the loop's, the arithmetic is ``m1lite.rl.credit``; who normalises is
``m1lite.rl.advantages``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from m1lite.collaboration.aggregate import Aggregate, vote
from m1lite.rewards.scoring import score_answers
from m1lite.rl.advantages import reward_tensor
from m1lite.rl.credit import difference_rewards, dropout_rewards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from m1lite.records import Answer, Episode
    from m1lite.rewards.compose import Breakdown

    Breakdowns = Sequence[Mapping[str, Breakdown]]


def totals(breakdowns: Breakdowns, agents: Sequence[str]) -> Tensor:
    """Take the sum of an agent's terms.

    Args:
        breakdowns: one mapping per episode, E of them.
        agents: A names, the columns.

    Returns:
        float32 ``(E, A)``, NaN where no term is known.
    """
    columns = [reward_tensor([breakdown[agent].total for breakdown in breakdowns]) for agent in agents]
    return torch.stack(columns, dim=1)


def terms(breakdowns: Breakdowns, agents: Sequence[str]) -> Tensor:
    """Take an agent's terms one by one, weighted and gated, in the order of the configuration.

    Args:
        breakdowns: one mapping per episode, E of them.
        agents: A names, the columns.

    Returns:
        float32 ``(E, A, J)``, NaN where a term is not known.
    """
    names = list(breakdowns[0][agents[0]].shares) if breakdowns else []
    rows = [
        [reward_tensor([breakdown[agent].shares[n] for n in names]) for agent in agents] for breakdown in breakdowns
    ]
    return torch.stack([torch.stack(row) for row in rows]) if rows else torch.zeros(0, len(agents), len(names))


def turns(breakdowns: Breakdowns, agents: Sequence[str]) -> Tensor:
    """Take an agent's reward turn by turn.

    Args:
        breakdowns: one mapping per episode, E of them, composed with ``turns``.
        agents: A names, the columns.

    Returns:
        float32 ``(E, A, U)``, U the most turns of any; NaN beyond an agent's last turn.

    Raises:
        ValueError: if no breakdown has rewards per turn.
    """
    width = max((len(breakdown[agent].turns) for breakdown in breakdowns for agent in agents), default=0)
    if breakdowns and not width:
        raise ValueError("The rewards have no rewards per turn; give `compose` its `turns`, for example BilevelTurns.")
    table = torch.full((len(breakdowns), len(agents), width), float("nan"))
    for episode, breakdown in enumerate(breakdowns):
        for column, agent in enumerate(agents):
            found = breakdown[agent].turns
            table[episode, column, : len(found)] = reward_tensor(found)
    return table


def team_scores(episodes: Sequence[Episode]) -> Tensor:
    """Score the team's answer of each episode: 2 m - 1, m by the metric of its task.

    Returns:
        float32 ``(E,)``, in [-1, 1].
    """
    return _scores(episodes, [episode.answer for episode in episodes])


def difference(episodes: Sequence[Episode], *, aggregate: Aggregate = vote) -> Tensor:
    """Score what the team's answer owes to each agent's vote; see ``credit.difference_rewards``.

    Args:
        episodes: E finished episodes of the same A agents.
        aggregate: how the team finds its answer; an agent without an answer has no say in it.

    Returns:
        float32 ``(E, A)``, in [-2, 2]; exactly 0 where the answer is worth the same without the vote.
    """
    columns = []
    for agent in episodes[0].trajectories if episodes else ():
        silenced = [
            {name: replace(one, answer=None) if name == agent else one for name, one in episode.trajectories.items()}
            for episode in episodes
        ]
        columns.append(_scores(episodes, [aggregate(trajectories) for trajectories in silenced]))
    if not columns:
        return torch.zeros(0, 0)
    return difference_rewards(team_scores(episodes), torch.stack(columns, dim=1))


def difference_by_dropout(episodes: Sequence[Episode], *, across_samples: bool = True) -> Tensor:
    """Score what episodes in which an agent was heard have over those in which it was not; see ``dropout_rewards``.

    Args:
        episodes: E finished episodes of the same A agents, under topologies that leave some agents unheard.
        across_samples: compare with the episodes of all samples; otherwise with those of the same sample, which needs a
            topology that is drawn anew for each episode.

    Returns:
        float32 ``(E, A)``, NaN where an agent was not heard, or always.
    """
    agents = list(episodes[0].trajectories) if episodes else []
    heard = [[any(agent in peers for peers in episode.visible.values()) for agent in agents] for episode in episodes]
    ids: dict[str, int] = {}
    group = [0 if across_samples else ids.setdefault(episode.sample.id, len(ids)) for episode in episodes]
    presence = torch.tensor(heard, dtype=torch.bool).reshape(len(episodes), len(agents))
    return dropout_rewards(team_scores(episodes), presence, torch.tensor(group, dtype=torch.long))


class RewardTable:
    """Turns episodes and breakdowns into what credit is assigned from.

    Args:
        own: of the agents' rewards: :func:`totals`, :func:`terms` or :func:`turns`.
        team: of the team's: :func:`team_scores`, :func:`difference` or :func:`difference_by_dropout`.
    """

    def __init__(
        self,
        *,
        own: Callable[[Breakdowns, Sequence[str]], Tensor] = totals,
        team: Callable[[Sequence[Episode]], Tensor] = team_scores,
    ) -> None:
        self.own = own
        self.team = team

    def __call__(
        self, episodes: Sequence[Episode], breakdowns: Breakdowns, agents: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Return the agents' rewards ``(E, A)`` or ``(E, A, X)``, and the team's ``(E,)`` or ``(E, A)``."""
        return self.own(breakdowns, agents), self.team(episodes)


def _scores(episodes: Sequence[Episode], answers: Sequence[Answer | None]) -> Tensor:
    scores = score_answers([episode.sample for episode in episodes], answers)
    return torch.tensor([2 * score - 1 for score in scores], dtype=torch.float32)
