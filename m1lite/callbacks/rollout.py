"""Before every step: the team plays the batch's questions, and what it did becomes the tokens to learn from.

Glue only. Who plays, what is rewarded, who gets the credit and what counts as better are passed in.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
import torch
from typing_extensions import override

from m1lite.agents.chat import pack
from m1lite.callbacks.statistics import rollout_stats, sampled_tokens, team_rewards
from m1lite.collaboration.loop import derive_seed
from m1lite.modules.ranks import mean_over_ranks
from m1lite.rl.advantages import group_advantages, per_agent, reward_tensor
from m1lite.rl.credit import own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from m1lite.agents.agent import Agent
    from m1lite.modules.batch import RolloutBatch
    from m1lite.modules.marl import MarlModule
    from m1lite.records import Episode, Sample, TokenBatch
    from m1lite.rewards.compose import Breakdown


class Play(Protocol):
    """Runs the team: ``collaboration.loop.run`` with engine, tools, topology and number of episodes bound."""

    def __call__(self, samples: Sequence[Sample], agents: Sequence[Agent], *, seed: int) -> list[Episode]:
        """Return the episodes of the first sample, then of the second, and so on."""


class RolloutCallback(pl.Callback):
    """Fills a batch's tokens before every training step, and plays the validation questions.

    The seed of a rollout is derived from (seed, step), those of its episodes and topologies from it and the sample's
    id, so a resumed run plays the same episodes.

    Args:
        agents: the team, in its order.
        play: runs the team on training questions.
        reward: episodes to breakdowns, for example ``partial(compose, terms=...)``.
        advantage: rewards and group ids, both ``(E,)``, to advantages ``(E,)``.
        credit: rewards of agents ``(E, A)`` and of the team ``(E,)`` to what each agent learns from ``(E, A)``.
        seed: of the run.
        validation: runs the team on validation questions; None plays none.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        play: Play,
        reward: Callable[[Sequence[Episode]], list[dict[str, Breakdown]]],
        *,
        advantage: Callable[[Tensor, Tensor], Tensor] = group_advantages,
        credit: Callable[[Tensor, Tensor], Tensor] = own,
        seed: int = 0,
        validation: Play | None = None,
    ) -> None:
        self.agents = list(agents)
        self.play = play
        self.reward = reward
        self.advantage = advantage
        self.credit = credit
        self.seed = seed
        self.validation = validation
        self._scores: dict[str, list[float]] = {}

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: RolloutBatch, batch_idx: int) -> None:
        started = time.perf_counter()
        seed = derive_seed(self.seed, "train", trainer.global_step)
        batch.episodes = self.play(batch.samples, self.agents, seed=seed)
        breakdowns = self.reward(batch.episodes)
        batch.rewards = list(breakdowns)
        values: dict[str, float] = {}
        batch.tokens = {}
        if batch.episodes:
            rewards, group = self._rewards(batch.episodes, breakdowns)
            advantages = per_agent(rewards, group, self.advantage)  # (E, A)
            batch.tokens = self._pack(batch.episodes, advantages, pl_module)
            values = rollout_stats(batch.episodes, breakdowns, rewards, group)
        batch.to(pl_module.device)
        seconds = time.perf_counter() - started
        tokens = sampled_tokens([part for episode in batch.episodes for part in episode.trajectories.values()])
        values |= {"perf/rollout_s": seconds, "perf/rollout_tokens_per_s": tokens / seconds}
        pl_module.log_dict(mean_over_ranks(values, weight=max(len(batch.episodes), 1e-9)), batch_size=1)

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._scores = {}

    @override
    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        batch: RolloutBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.validation is None:
            return
        # One seed for all validations: they differ by the weights alone.
        batch.episodes = self.validation(batch.samples, self.agents, seed=derive_seed(self.seed, "validation"))
        batch.rewards = list(self.reward(batch.episodes))
        self._scores.setdefault("val/team/reward", []).extend(team_rewards(batch.episodes))
        for breakdowns in batch.rewards:
            for agent, breakdown in breakdowns.items():
                if breakdown.total is not None:
                    self._scores.setdefault(f"val/{agent}/reward", []).append(breakdown.total)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.validation is None:
            return
        values = {name: sum(scores) / len(scores) for name, scores in self._scores.items()}
        count = max((len(scores) for scores in self._scores.values()), default=0)
        pl_module.log_dict(mean_over_ranks(values, weight=count), batch_size=1)

    def _rewards(
        self, episodes: Sequence[Episode], breakdowns: Sequence[Mapping[str, Breakdown]]
    ) -> tuple[Tensor, Tensor]:
        """Return what each agent learns from, ``(E, A)``, and the group of each episode, ``(E,)``."""
        totals = [[breakdown[agent.name].total for breakdown in breakdowns] for agent in self.agents]
        own_rewards = torch.stack([reward_tensor(column) for column in totals], dim=1)
        groups: dict[str, int] = {}
        group = torch.tensor([groups.setdefault(episode.sample.id, len(groups)) for episode in episodes])
        return self.credit(own_rewards, torch.tensor(team_rewards(episodes))), group

    def _pack(self, episodes: Sequence[Episode], advantages: Tensor, module: MarlModule) -> dict[str, TokenBatch]:
        tokens: dict[str, Any] = {}
        for column, agent in enumerate(self.agents):
            tokens[agent.name] = pack(
                [episode.trajectories[agent.name] for episode in episodes],
                advantages[:, column].tolist(),
                pad_id=module.team.pad_id(agent.name),
                temperature=agent.sampling.temperature,
            )
        return tokens
