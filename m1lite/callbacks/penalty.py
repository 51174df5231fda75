"""KL in the reward: what a trajectory strays from the frozen reference is taken off its reward, before any comparison.

The KL term of the loss is the objective's; use one of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from m1lite.callbacks.learning import packed
from m1lite.modules.rows import micro_batches, needed_lengths, take_rows
from m1lite.rl.divergences import Divergence, kl_k1, penalised_rewards, penalised_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from m1lite.agents.agent import Agent
    from m1lite.callbacks.learning import Rollout
    from m1lite.modules.team import Team
    from m1lite.records import TokenBatch


class KlInReward:
    """Takes beta times the divergence of every trajectory, or of every turn, off its reward.

    Args:
        beta: at least 0.
        estimate: of ``m1lite.rl.divergences``.
        by_turn: rewards are per turn (``rewards.table.turns``), and each turn pays for its own tokens.
        micro_batch_tokens: padded tokens per forward pass of the reference.

    Raises:
        ValueError: if ``beta`` is negative.

    References:
        RLOO (Ahmadian et al. 2024, arXiv:2402.14740), REINFORCE++ (Hu et al. 2025, arXiv:2501.03262).
    """

    def __init__(
        self, *, beta: float, estimate: Divergence = kl_k1, by_turn: bool = False, micro_batch_tokens: int = 4096
    ) -> None:
        if beta < 0:
            raise ValueError(f"`beta` is {beta}; the weight of the KL term must be at least 0.")
        self.beta = beta
        self.estimate = estimate
        self.by_turn = by_turn
        self.micro_batch_tokens = micro_batch_tokens

    @torch.no_grad()
    def __call__(self, team: Team, tokens: TokenBatch, rewards: Tensor, turns: Tensor | None = None) -> Tensor:
        """Return one agent's rewards, ``(E,)`` or ``(E, U)``, less the divergence of its rows.

        Args:
            team: gives the reference's log-probs; the engine's stand for the policy's.
            tokens: E rows, T tokens.
            rewards: float ``(E,)``; ``(E, U)`` with ``by_turn``.
            turns: long ``(E, T)``, the turn of each sampled token; read with ``by_turn`` only.

        Raises:
            ValueError: if the shape of the rewards is not that of ``by_turn``.
        """
        if rewards.ndim != 1 + self.by_turn:
            raise ValueError(
                f"Rewards of shape {tuple(rewards.shape)} meet `by_turn={self.by_turn}`; one per trajectory needs "
                "False, one per turn True; where they are per term, put the KL into the loss (the objective's `beta`)."
            )
        reference = torch.zeros_like(tokens.sampled_logprobs)
        lengths = needed_lengths(tokens)
        for rows in micro_batches(lengths, self.micro_batch_tokens):
            part = take_rows(tokens, rows, width=lengths[rows[0]])
            reference[rows, : lengths[rows[0]]] = team.reference_logprobs(tokens.agent, part)
        scores = rewards.to(reference.device), tokens.sampled_logprobs, reference, tokens.loss_mask
        if self.by_turn:
            assert turns is not None
            return penalised_turns(*scores, turns, beta=self.beta, estimate=self.estimate)
        return penalised_rewards(*scores, beta=self.beta, estimate=self.estimate)

    def on(self, rollout: Rollout, agents: Sequence[Agent], team: Team) -> Tensor:
        """Return the rewards ``(E, A)`` or ``(E, A, U)`` of all agents of a rollout less their divergences."""
        if not rollout.episodes:
            return rollout.rewards
        longest = max(len(part.turns) for episode in rollout.episodes for part in episode.trajectories.values())
        # Laid out as advantages are, the number of a turn lands on the turn's tokens.
        numbers = torch.arange(float(longest)).expand(*rollout.rewards.shape[:2], longest)
        tokens = packed(rollout.episodes, numbers, agents, team)
        columns = zip(agents, rollout.rewards.unbind(1), strict=True)
        found = [self(team, tokens[a.name], rewards, tokens[a.name].advantages.long()) for a, rewards in columns]
        return torch.stack(found, dim=1).cpu()
