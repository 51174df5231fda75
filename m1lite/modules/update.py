"""One agent's rollout turned into gradients and sums, micro-batch by micro-batch; ``marl.py`` steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from m1lite.modules.batch import no_tokens
from m1lite.modules.rows import micro_batches, needed_lengths, take_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from m1lite.modules.objective import Objective
    from m1lite.modules.team import Team
    from m1lite.records import TokenBatch


class AgentUpdate:
    """The rollout of one agent during one training step, with its log-probs at the start of the update.

    Args:
        team: holds the agent's policy and reference.
        agent: whose rollout.
        batch: B rows, T tokens.
        objective: what is minimised.
        micro_batch_tokens: padded tokens per forward pass.
        backward: called with every micro-batch's summed loss.
    """

    def __init__(
        self,
        team: Team,
        agent: str,
        batch: TokenBatch,
        *,
        objective: Objective,
        micro_batch_tokens: int,
        backward: Callable[[Tensor], None],
    ) -> None:
        self.team = team
        self.agent = agent
        self.batch = batch
        self.objective = objective
        self.micro_batch_tokens = micro_batch_tokens
        self.backward = backward
        self.lengths = needed_lengths(batch)
        self.old = torch.zeros_like(batch.sampled_logprobs)
        self.reference = torch.zeros_like(batch.sampled_logprobs) if objective.needs_reference else None

    @torch.no_grad()
    def anchor(self) -> None:
        """Score all rows before the first step: later minibatches compare with these weights, not with their own."""
        for rows in micro_batches(self.lengths, self.micro_batch_tokens):
            part = take_rows(self.batch, rows, width=self.lengths[rows[0]])
            self._keep_reference(rows, part)
            self._keep_old(rows, self.team.logprobs(self.agent, part)[0])

    def accumulate(self, rows: Sequence[int], *, anchored: bool) -> dict[str, Tensor]:
        """Add the gradients of some rows' summed loss to the agent's parameters.

        Args:
            rows: indices into the batch; may be none.
            anchored: the rows' log-probs at the start of the update are known. Otherwise the weights have not changed
                yet, and the pass that is made anyway gives them.

        Returns:
            Sums over the rows' loss tokens by log name, and ``tokens``, their number; the same names for no rows.
        """
        sums = self._sums(no_tokens(self.agent, self.old.device))
        for group in micro_batches([self.lengths[row] for row in rows], self.micro_batch_tokens):
            chosen = [rows[index] for index in group]
            found = self._micro_batch(chosen, anchored=anchored)
            sums = {name: value + found[name] for name, value in sums.items()}
        return sums

    def extremes(self) -> list[float]:
        """Return the largest |log-prob difference| between trainer and engine, and the ratio's largest and least.

        All three so that a maximum over ranks is right: the least ratio comes negated, ``-inf`` stands for no tokens.
        """
        mask = self.batch.loss_mask
        if not bool(mask.any()):
            return [-float("inf")] * 3
        difference = (self.old - self.batch.sampled_logprobs)[mask]
        ratio = difference.exp()
        return [difference.abs().max().item(), ratio.max().item(), -ratio.min().item()]

    def _micro_batch(self, rows: Sequence[int], *, anchored: bool) -> dict[str, Tensor]:
        width = self.lengths[rows[0]]
        part = take_rows(self.batch, rows, width=width)
        if not anchored:
            # Before the policy's own pass: the adapter has to stay on up to the backward pass.
            self._keep_reference(rows, part)
        logprobs, entropy = self.team.logprobs(self.agent, part)
        if not anchored:
            self._keep_old(rows, logprobs.detach())
        old = self.old[rows, :width]
        reference = self.reference[rows, :width] if self.reference is not None else None
        loss, sums = self.objective(part, logprobs, old, reference)
        self.backward(loss)
        return {**self._counts(part, old, entropy), **sums}

    def _sums(self, nothing: TokenBatch) -> dict[str, Tensor]:
        values = nothing.sampled_logprobs
        return {**self._counts(nothing, values, values), **self.objective(nothing, values, values, values)[1]}

    @staticmethod
    def _counts(part: TokenBatch, old: Tensor, entropy: Tensor) -> dict[str, Tensor]:
        difference = torch.where(part.loss_mask, old - part.sampled_logprobs, 0.0)
        return {
            "tokens": part.loss_mask.sum(),
            "entropy": entropy.sum(),
            "sampling/sampling_logp_difference/mean": difference.abs().sum(),
            "sampling/importance_sampling_ratio/mean": (difference.exp() * part.loss_mask).sum(),
        }

    def _keep_old(self, rows: Sequence[int], values: Tensor) -> None:
        self.old[rows, : values.shape[1]] = values

    def _keep_reference(self, rows: Sequence[int], part: TokenBatch) -> None:
        if self.reference is not None:
            values = self.team.reference_logprobs(self.agent, part)
            self.reference[rows, : values.shape[1]] = values
