"""One agent's training objective: policy loss, distance to the reference, correction for stale samples.

All are sums over tokens. The formulas are in ``m1lite.rl.losses``;
who computes the log-probs and who divides by the count is ``marl.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from m1lite.rl.losses import PolicyLoss, clipped_surrogate, kl_k3, token_sum

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.records import TokenBatch


class Objective:
    r"""Sum over sampled tokens of policy loss + beta × KL(policy ‖ reference).

    Args:
        loss: a policy loss of ``m1lite.rl.losses``, bounds already bound by ``functools.partial``.
        beta: weight of the KL term, at least 0; at 0 the reference is not evaluated at all.
        importance_cap: weigh each token's advantage by ``min(old / sampled, cap)``: its probability under the trainer's
            weights at the start of the update over that under the engine's; None leaves the weight out.

    Raises:
        ValueError: if ``beta`` is negative or ``importance_cap`` is not positive.

    References:
        Truncated importance sampling: Ionides 2008, J. Comput. Graph. Stat. 17(2).
    """

    def __init__(
        self, loss: PolicyLoss = clipped_surrogate, *, beta: float = 0.0, importance_cap: float | None = None
    ) -> None:
        if beta < 0:
            raise ValueError(f"`beta` is {beta}; the weight of the KL term must be at least 0.")
        if importance_cap is not None and not importance_cap > 0:
            raise ValueError(f"`importance_cap` is {importance_cap}; it must be above 0, or None for no correction.")
        self.loss = loss
        self.beta = beta
        self.importance_cap = importance_cap

    @property
    def needs_reference(self) -> bool:
        """Whether :meth:`__call__` reads the reference's log-probs."""
        return self.beta > 0

    def __call__(
        self, batch: TokenBatch, logprobs: Tensor, old: Tensor, reference: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and statistics, both summed over the batch's loss tokens.

        Args:
            batch: B rows, T tokens; its advantages and mask are read.
            logprobs: float32 ``(B, T)``, the current policy's, with gradient.
            old: float32 ``(B, T)``, at the start of the update.
            reference: float32 ``(B, T)``, or None where ``needs_reference`` is false.

        Returns:
            The loss, 0-dimensional, and sums by log name.
        """
        mask, advantages = batch.loss_mask, batch.advantages
        if self.importance_cap is not None:
            ratio = torch.where(mask, old - batch.sampled_logprobs, 0.0).exp()
            advantages = advantages * ratio.clamp(max=self.importance_cap)
        losses, sums = self.loss(logprobs, old, advantages, mask)
        if self.needs_reference:
            assert reference is not None
            kl = kl_k3(logprobs, reference, mask)
            losses = losses + self.beta * kl
            sums = {**sums, "kl": kl.detach().sum()}
        total, _ = token_sum(losses, mask)
        return total, {**sums, "loss": total.detach()}
