"""From played episodes to advantages: rewards as tensors, credit, and the comparison within groups over all ranks.

Which rules hold is passed in; who plays and who packs is ``rollout.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from m1lite.agents.chat import pack
from m1lite.modules.ranks import num_ranks, this_rank
from m1lite.rl.advantages import per_agent
from m1lite.rl.groups import GroupStats

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import Tensor

    from m1lite.agents.agent import Agent
    from m1lite.modules.team import Team
    from m1lite.records import Episode, Sample, TokenBatch
    from m1lite.rewards.compose import Breakdown


@dataclass(kw_only=True, slots=True)
class Rollout:
    """Episodes with what each agent learns from them."""

    samples: list[Sample]
    episodes: list[Episode]
    """E of them, every sample's together."""
    breakdowns: list[dict[str, Breakdown]]
    """One per episode."""
    rewards: Tensor
    """float ``(E, A)``, or ``(E, A, X)`` per turn or term; NaN where there is none."""

    @property
    def group(self) -> Tensor:
        """Long ``(E,)``: which sample each episode belongs to."""
        groups: dict[str, int] = {}
        return torch.tensor(
            [groups.setdefault(episode.sample.id, len(groups)) for episode in self.episodes], dtype=torch.long
        )

    @property
    def sums(self) -> Tensor:
        """Rewards float ``(E, A)``, added up over turns or terms."""
        if self.rewards.ndim == 2:
            return self.rewards
        missing = self.rewards.isnan().all(2)
        return torch.where(missing, float("nan"), self.rewards.nansum(2))

    def teaching(self) -> list[str]:
        """Return the ids of the samples in whose episodes the rewards of any agent differ."""
        varies = torch.zeros(len(self.episodes), dtype=torch.bool)
        for column in self.rewards.flatten(1).unbind(1):
            varies |= GroupStats(column, self.group).varies
        return list(dict.fromkeys(e.sample.id for e, v in zip(self.episodes, varies.tolist(), strict=True) if v))

    def only(self, ids: Collection[str]) -> Rollout:
        """Return the part of some samples."""
        rows = [row for row, episode in enumerate(self.episodes) if episode.sample.id in ids]
        return Rollout(
            samples=[sample for sample in self.samples if sample.id in ids],
            episodes=[self.episodes[row] for row in rows],
            breakdowns=[self.breakdowns[row] for row in rows],
            rewards=self.rewards[rows],
        )

    def joined(self, other: Rollout) -> Rollout:
        """Return both, this one first."""
        return Rollout(
            samples=self.samples + other.samples,
            episodes=self.episodes + other.episodes,
            breakdowns=self.breakdowns + other.breakdowns,
            rewards=_stacked([self.rewards, other.rewards]),
        )


def advantages_over_ranks(rewards: Tensor, group: Tensor, advantage: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Form this rank's advantages from the rewards of all ranks, so that batch statistics are global.

    Every rank must call it, also one without episodes.

    Args:
        rewards: float ``(E, A)`` or ``(E, A, X)``.
        group: long ``(E,)``; the same id on another rank is another group.
        advantage: as in ``per_agent``.

    Returns:
        ``(E, A)`` or ``(E, A, U)``.
    """
    if num_ranks() == 1:
        return per_agent(rewards, group, advantage)
    found: list[Any] = [None] * num_ranks()
    dist.all_gather_object(found, (rewards.cpu(), group.cpu()))
    parts = [(values, ids) for values, ids in found if len(values)]
    if not len(rewards):
        return torch.zeros_like(rewards)
    everything = _stacked([values for values, _ in parts])
    names = torch.cat([ids + 10**9 * number for number, (_, ids) in enumerate(parts)])
    start = sum(len(values) for values, _ in found[: this_rank()])
    return per_agent(everything, names, advantage)[start : start + len(rewards)].to(rewards.device)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Put rewards one after the other, filled up with NaN to the same number of turns or terms."""
    if parts[0].ndim == 2:
        return torch.cat(list(parts))
    width = max(part.shape[2] for part in parts)
    filled = [torch.nn.functional.pad(part, (0, width - part.shape[2]), value=float("nan")) for part in parts]
    return torch.cat(filled)


def packed(
    episodes: Sequence[Episode], advantages: Tensor, agents: Sequence[Agent], team: Team
) -> dict[str, TokenBatch]:
    """Lay out what each agent wrote, with its advantages.

    Args:
        episodes: E of them; none give no batch.
        advantages: float ``(E, A)``, one for all turns of an agent, or ``(E, A, U)``, one for each.
        agents: A of them.
        team: knows the padding of each agent's base.
    """
    if not episodes:
        return {}
    return {
        agent.name: pack(
            [episode.trajectories[agent.name] for episode in episodes],
            [
                row[: len(episode.trajectories[agent.name].turns)] if isinstance(row, list) else row
                for row, episode in zip(advantages[:, column].tolist(), episodes, strict=True)
            ],
            pad_id=team.pad_id(agent.name),
            temperature=agent.sampling.temperature,
            names=[f"{episode.sample.id}/{episode.index}" for episode in episodes],
        )
        for column, agent in enumerate(agents)
    }
