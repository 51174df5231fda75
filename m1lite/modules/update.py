"""One agent's rollout turned into gradients and sums, micro-batch by micro-batch; ``marl.py`` steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from m1lite.modules.batch import no_tokens
from m1lite.modules.objective import check_entropy
from m1lite.modules.prefixes import plan_shared
from m1lite.modules.rows import micro_batches, needed_lengths, take_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
        micro_batch_tokens: tokens per forward pass, padding included where there is any.
        backward: called with every micro-batch's summed loss.
        minibatches: optimiser steps that one pass over the rollout is cut into.
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
        minibatches: int = 1,
    ) -> None:
        self.team = team
        self.agent = agent
        self.batch = batch
        self.objective = objective
        self.micro_batch_tokens = micro_batch_tokens
        self.backward = backward
        self.minibatches = minibatches
        self.lengths = needed_lengths(batch)
        self.old = torch.zeros_like(batch.sampled_logprobs)
        self.reference = torch.zeros_like(batch.sampled_logprobs) if objective.needs_reference else None

    @torch.no_grad()
    def anchor(self) -> None:
        """Score all rows before the first step: later minibatches compare with these weights, not with their own."""
        for rows in self._plan(range(len(self.lengths))):
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
            Sums over the rows' loss tokens by log name; ``tokens``, their number; ``units``, what ``loss`` and the
            gradient are to be divided by; ``nonfinite_logprobs``, the number of log-probs that are no number. The same
            names for no rows.
        """
        sums = self._sums(no_tokens(self.agent, self.old.device))
        sums["units"] = self._units(rows)
        for chosen in self._plan(rows):
            found = self._micro_batch(chosen, anchored=anchored)
            sums |= {name: sums[name] + value for name, value in found.items()}
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
        options = {"entropy_gradient": True} if self.objective.needs_entropy else {}
        logprobs, entropy = self.team.logprobs(self.agent, part, **options)
        check_entropy(self.objective, entropy)
        if not anchored:
            self._keep_old(rows, logprobs.detach())
        old = self.old[rows, :width]
        reference = self.reference[rows, :width] if self.reference is not None else None
        loss, sums = self.objective(part, logprobs, old, reference, entropy)
        self.backward(loss)
        return {**self._counts(part, logprobs, old, reference, entropy), **sums}

    def _plan(self, rows: Sequence[int]) -> list[list[int]]:
        """Group rows for one forward pass each, longest first: by distinct tokens where no padding is computed."""
        lengths = [self.lengths[row] for row in rows]
        if getattr(self.team, "packing", False):
            groups = plan_shared(self.batch.input_ids[list(rows)], lengths, self.micro_batch_tokens)
        else:
            groups = micro_batches(lengths, self.micro_batch_tokens)
        return [[rows[index] for index in group] for group in groups]

    def _units(self, rows: Sequence[int]) -> Tensor:
        """Count the units of the objective's reduction; rows without loss tokens stand here, unlike in a forward."""
        mask = self.batch.loss_mask
        if self.objective.units == "rollout":
            return self.objective.count(mask) / self.minibatches
        return self.objective.count(mask[torch.as_tensor(rows, dtype=torch.long, device=mask.device)])

    def _sums(self, nothing: TokenBatch) -> dict[str, Tensor]:
        values = nothing.sampled_logprobs
        sums = self.objective(nothing, values, values, values, values)[1]
        return {**self._counts(nothing, values, values, None, values), **sums}

    @staticmethod
    @torch.no_grad()
    def _counts(
        part: TokenBatch, logprobs: Tensor, old: Tensor, reference: Tensor | None, entropy: Tensor
    ) -> dict[str, Tensor]:
        difference = torch.where(part.loss_mask, old - part.sampled_logprobs, 0.0)
        # A sum that is finite does not say that its parts are: a clip can hide a ratio of infinity.
        finite = logprobs.isfinite() & difference.isfinite()
        if reference is not None:
            finite &= reference.isfinite()
        return {
            "tokens": part.loss_mask.sum(),
            "nonfinite_logprobs": (part.loss_mask & ~finite).sum(),
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


def token_means(totals: Mapping[str, float]) -> dict[str, float]:
    """Turn global sums of one or more optimiser steps into what is logged.

    Args:
        totals: of :meth:`AgentUpdate.accumulate`, added up over ranks and steps.

    Returns:
        ``loss`` per unit, everything else per token; and where tokens were weighed against the engine's,
        ``sampling/effective_sample_size`` as a share of the tokens.

    Example:
        >>> token_means({"tokens": 4.0, "units": 2.0, "nonfinite_logprobs": 0.0, "loss": 3.0, "kl": 1.0})
        {'loss': 1.5, 'kl': 0.25}
    """
    tokens = totals["tokens"]
    hidden = ("tokens", "units", "nonfinite_logprobs", "sampling/correction_squared")
    means = {name: value / tokens for name, value in totals.items() if name not in hidden}
    means["loss"] = totals["loss"] / totals["units"]
    if "sampling/correction_squared" in totals:
        squares = totals["sampling/correction_squared"]
        means["sampling/effective_sample_size"] = totals["sampling/correction"] ** 2 / (tokens * squares or math.inf)
    return means
