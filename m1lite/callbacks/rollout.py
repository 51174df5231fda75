"""Before every step: the team plays the batch's questions, and what it did becomes the tokens to learn from.

Glue only. Who plays, what is rewarded, who gets the credit and what counts as better are passed in.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import lightning.pytorch as pl
import torch
from typing_extensions import override

from m1lite.callbacks.learning import Rollout, advantages_over_ranks, packed
from m1lite.callbacks.refill import Refill, training_samples
from m1lite.callbacks.replay import Replayed
from m1lite.callbacks.statistics import rollout_stats, sampled_tokens, team_rewards
from m1lite.collaboration.loop import derive_seed
from m1lite.engines.base import EngineError
from m1lite.modules.ranks import mean_over_ranks, num_ranks, this_rank
from m1lite.rewards.table import RewardTable
from m1lite.rl.advantages import group_advantages
from m1lite.rl.credit import own

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from m1lite.agents.agent import Agent
    from m1lite.callbacks.penalty import KlInReward
    from m1lite.modules.batch import RolloutBatch
    from m1lite.modules.marl import MarlModule
    from m1lite.records import Episode, Sample, TokenBatch
    from m1lite.rewards.compose import Breakdown


class Play(Protocol):
    """Runs the team: ``collaboration.loop.run`` with engine, tools, topology and number of episodes bound."""

    def __call__(self, samples: Sequence[Sample], agents: Sequence[Agent], *, seed: int, **rules: Any) -> list[Episode]:
        """Return the episodes of the first sample, then of the second, and so on; ``rules`` replace bound ones."""


class RolloutCallback(pl.Callback):
    """Fills a batch's tokens before every training step, and plays the validation questions.

    The seed of a rollout is derived from (seed, step), those of its episodes and topologies from it and the sample's
    id, so a resumed run plays the same episodes.

    Args:
        agents: the team, in its order.
        play: runs the team on training questions.
        reward: episodes to breakdowns, for example ``partial(compose, terms=...)``; where it is ``Replayed``, the
            step's questions are played once more under its condition.
        advantage: rewards and group ids, both ``(E,)``, to advantages ``(E,)``; where rewards are per turn or term,
            ``(E, X)`` to ``(E, U)`` or ``(E,)``.
        credit: rewards of agents and of the team, as ``table`` gives them, to what each agent learns from.
        table: episodes and breakdowns to the rewards of agents and team.
        penalty: takes the divergence from the reference off the rewards; None leaves them.
        refill: replaces questions that teach nothing; None keeps them.
        seed: of the run.
        validation: runs the team on validation questions; None plays none.
    """

    beside_updates = False
    """Whether the team plays while the module learns."""

    def __init__(
        self,
        agents: Sequence[Agent],
        play: Play,
        reward: Callable[[Sequence[Episode]], list[dict[str, Breakdown]]],
        *,
        advantage: Callable[[Tensor, Tensor], Tensor] = group_advantages,
        credit: Callable[[Tensor, Tensor], Tensor] = own,
        table: RewardTable | None = None,
        penalty: KlInReward | None = None,
        refill: Refill | None = None,
        seed: int = 0,
        validation: Play | None = None,
    ) -> None:
        self.agents = list(agents)
        self.play = play
        self.reward = reward
        self.advantage = advantage
        self.credit = credit
        self.table = RewardTable() if table is None else table
        self.penalty = penalty
        self.refill = refill
        self.seed = seed
        self.validation = validation
        self._scores: dict[str, list[float]] = {}

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: RolloutBatch, batch_idx: int) -> None:
        rollout, values = self._find(trainer, batch.samples, trainer.global_step)
        batch.samples, batch.episodes, batch.rewards = rollout.samples, rollout.episodes, list(rollout.breakdowns)
        penalty = self.penalty
        rewards = rollout.rewards if penalty is None else penalty.on(rollout, self.agents, pl_module.team)
        advantages = advantages_over_ranks(rewards, rollout.group, self.advantage)  # (E, A) or (E, A, U)
        batch.tokens = self._pack(rollout.episodes, advantages, pl_module)
        if rollout.episodes:
            values |= rollout_stats(rollout.episodes, rollout.breakdowns, rollout.sums, rollout.group)
        batch.to(pl_module.device)
        pl_module.log_dict(mean_over_ranks(values, weight=max(len(batch.episodes), 1e-9)), batch_size=1)

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._scores = {}

    @override
    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: RolloutBatch, batch_idx: int, dataloader_idx: int = 0
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

    def _find(self, trainer: pl.Trainer, samples: Sequence[Sample], step: int) -> tuple[Rollout, dict[str, float]]:
        """Give the rollout of a step's own questions, and values for the log."""
        return self._play_step(trainer, samples, step)

    def _play_step(self, trainer: pl.Trainer, samples: Sequence[Sample], step: int) -> tuple[Rollout, dict[str, float]]:
        started = time.perf_counter()
        seed = derive_seed(self.seed, "train", step)
        values: dict[str, float] = {}
        try:
            rollout = self._rollout(samples, seed)
            if self.refill is not None and rollout.episodes:
                spare, share = training_samples(trainer), (this_rank(), num_ranks())
                rollout, values = self.refill(rollout, self._rollout, spare, seed=seed, share=share)
        except EngineError as error:
            raise EngineError(f"Rank {this_rank()}, rollout of step {step}: {error}") from error
        seconds = time.perf_counter() - started
        tokens = sampled_tokens([part for episode in rollout.episodes for part in episode.trajectories.values()])
        return rollout, {**values, "perf/rollout_s": seconds, "perf/rollout_tokens_per_s": tokens / seconds}

    def _rollout(self, samples: Sequence[Sample], seed: int) -> Rollout:
        episodes = self.play(samples, self.agents, seed=seed)
        breakdowns = list(self.reward(episodes))
        if isinstance(self.reward, Replayed) and episodes:
            again = derive_seed(seed, "replay")
            breakdowns = self.reward.replay(self.play, self.agents, episodes, breakdowns, seed=again)
        names = [agent.name for agent in self.agents]
        rewards = self.credit(*self.table(episodes, breakdowns, names)) if episodes else torch.zeros(0, len(names))
        return Rollout(samples=list(samples), episodes=episodes, breakdowns=breakdowns, rewards=rewards)

    def _pack(self, episodes: Sequence[Episode], advantages: Tensor, module: MarlModule) -> dict[str, TokenBatch]:
        return packed(episodes, advantages, self.agents, module.team)
