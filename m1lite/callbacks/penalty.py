"""KL in the reward: what a trajectory strays from the frozen reference is taken off its reward, before any comparison.

The KL term of the loss is the objective's; use one of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from m1lite.callbacks.learning import packed
from m1lite.modules.rows import micro_batches, needed_lengths, take_rows
from m1lite.rl.divergences import Divergence, kl_k1, penalised_rewards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from m1lite.agents.agent import Agent
    from m1lite.callbacks.learning import Rollout
    from m1lite.modules.team import Team
    from m1lite.records import TokenBatch


class KlInReward:
    """Takes beta times the divergence of every trajectory off its reward.

    Args:
        beta: at least 0.
        estimate: of ``m1lite.rl.divergences``.
        micro_batch_tokens: padded tokens per forward pass of the reference.

    References:
        RLOO (Ahmadian et al. 2024, arXiv:2402.14740), REINFORCE++ (Hu et al. 2025, arXiv:2501.03262).
    """

    def __init__(self, *, beta: float, estimate: Divergence = kl_k1, micro_batch_tokens: int = 4096) -> None:
        if beta < 0:
            raise ValueError(f"`beta` is {beta}; the weight of the KL term must be at least 0.")
        self.beta = beta
        self.estimate = estimate
        self.micro_batch_tokens = micro_batch_tokens

    @torch.no_grad()
    def __call__(self, team: Team, tokens: TokenBatch, rewards: Tensor) -> Tensor:
        """Return one agent's rewards ``(E,)`` less the divergence of its rows.

        Args:
            team: gives the reference's log-probs; the engine's stand for the policy's.
            tokens: E rows, T tokens.
            rewards: float ``(E,)``.

        Raises:
            ValueError: if rewards are per turn or term, which the divergence of a trajectory cannot be taken off.
        """
        if rewards.ndim != 1:
            raise ValueError(
                f"Rewards of shape {tuple(rewards.shape)} are per turn or term; a KL penalty in the reward needs one "
                "per trajectory, put the KL term into the loss (`beta` of the objective)."
            )
        reference = torch.zeros_like(tokens.sampled_logprobs)
        lengths = needed_lengths(tokens)
        for rows in micro_batches(lengths, self.micro_batch_tokens):
            part = take_rows(tokens, rows, width=lengths[rows[0]])
            reference[rows, : lengths[rows[0]]] = team.reference_logprobs(tokens.agent, part)
        return penalised_rewards(
            rewards.to(reference.device),
            tokens.sampled_logprobs,
            reference,
            tokens.loss_mask,
            beta=self.beta,
            estimate=self.estimate,
        )

    def on(self, rollout: Rollout, agents: Sequence[Agent], team: Team) -> Tensor:
        """Return the rewards ``(E, A)`` of all agents of a rollout less their divergences."""
        tokens = packed(rollout.episodes, torch.zeros(rollout.rewards.shape[:2]), agents, team)
        columns = rollout.rewards.unbind(1)
        if not tokens:
            return rollout.rewards
        return torch.stack([self(team, tokens[a.name], c) for a, c in zip(agents, columns, strict=True)], dim=1).cpu()
