"""One agent's training objective: policy loss, distance to the reference, entropy, correction for the engine's samples.

The formulas are in ``m1lite.rl``, one function each, and are passed in. Here they are put together as sums over tokens;
who computes the log-probs is ``update.py``, and who divides by the number of units is ``marl.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from m1lite.rl._checks import inside
from m1lite.rl.divergences import Divergence, kl_k3
from m1lite.rl.losses import PolicyLoss, clipped_surrogate
from m1lite.rl.reductions import Reduction, token_mean

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.records import TokenBatch
    from m1lite.rl.mismatch import Correction, SequenceFilter


class Objective:
    r"""Policy loss + beta × KL(policy ‖ reference) - entropy_weight × entropy, of the sampled tokens.

    .. math:: L = \frac{1}{N} \sum_{i,t} \frac{m_{i,t}}{d_i} \big(f_{i,t}\, \ell_{i,t} + \beta\, k_{i,t}
        - \eta\, H_{i,t}\big)

    with the loss :math:`\ell`, the sequence filter :math:`f`, the row's divisor :math:`d` and the number of units
    :math:`N` of the reduction.

    Args:
        loss: a policy loss of ``m1lite.rl``, bounds already bound by ``functools.partial``.
        reduction: of ``m1lite.rl.reductions``.
        units: of the optimiser step's own ``"minibatch"``, or the mean over all minibatches of the ``"rollout"``, so
            that every token of a rollout weighs the same whichever minibatch it falls into (DAPO).
        beta: weight of the KL term, at least 0; at 0 the reference is not evaluated at all.
        kl: the term's estimate, of ``m1lite.rl.divergences``.
        correction: weighs tokens by trainer over engine: a partial of ``m1lite.rl.mismatch.importance_weights``; None
            takes the engine's samples for the trainer's.
        sequence_filter: which sequences teach: a partial of ``m1lite.rl.mismatch.off_policy_mask``; None keeps all.
        entropy_weight: of the bonus, at least 0; the bonus follows the reduction, as the loss does.

    Raises:
        ValueError: if a weight is negative or ``units`` is not one of the two.
    """

    def __init__(
        self,
        loss: PolicyLoss = clipped_surrogate,
        *,
        reduction: Reduction = token_mean,
        units: Literal["minibatch", "rollout"] = "minibatch",
        beta: float = 0.0,
        kl: Divergence = kl_k3,
        correction: Correction | None = None,
        sequence_filter: SequenceFilter | None = None,
        entropy_weight: float = 0.0,
    ) -> None:
        if beta < 0:
            raise ValueError(f"`beta` is {beta}; the weight of the KL term must be at least 0.")
        if entropy_weight < 0:
            raise ValueError(f"`entropy_weight` is {entropy_weight}; the weight of the bonus must be at least 0.")
        if units not in ("minibatch", "rollout"):
            raise ValueError(f"`units` is {units!r}; it must be 'minibatch' or 'rollout'.")
        self.loss = loss
        self.reduction = reduction
        self.units = units
        self.beta = beta
        self.kl = kl
        self.correction = correction
        self.sequence_filter = sequence_filter
        self.entropy_weight = entropy_weight

    @property
    def needs_reference(self) -> bool:
        """Whether :meth:`__call__` reads the reference's log-probs."""
        return self.beta > 0

    @property
    def needs_entropy(self) -> bool:
        """Whether :meth:`__call__` reads entropies, with gradient."""
        return self.entropy_weight > 0

    def __call__(
        self,
        batch: TokenBatch,
        logprobs: Tensor,
        old: Tensor,
        reference: Tensor | None,
        entropy: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and statistics, both summed over the batch's loss tokens.

        Args:
            batch: B rows, T tokens; its advantages and mask are read.
            logprobs: float32 ``(B, T)``, the current policy's, with gradient.
            old: float32 ``(B, T)``, at the start of the update.
            reference: float32 ``(B, T)``, or None where ``needs_reference`` is false.
            entropy: float32 ``(B, T)``, with gradient, or None where ``needs_entropy`` is false.

        Returns:
            The loss before the division by the number of units, 0-dimensional, and sums by log name.
        """
        mask, advantages, sampled = batch.loss_mask, batch.advantages, batch.sampled_logprobs
        sums: dict[str, Tensor] = {}
        importance = None
        if self.correction is not None:
            importance = self.correction(old, sampled, mask)
            sums["sampling/correction"] = (importance * mask).sum()
            sums["sampling/correction_squared"] = (importance.square() * mask).sum()
        losses, named = self.loss(logprobs, old, advantages, mask, importance=importance)
        if self.sequence_filter is not None:
            keep = self.sequence_filter(logprobs.detach(), sampled, advantages, mask)
            losses = losses * keep
            sums["sampling/kept"] = (keep & mask).sum()
        if self.needs_reference:
            assert reference is not None
            kl = self.kl(logprobs, reference, mask, old_logprobs=old)
            losses = losses + self.beta * kl
            sums["kl"] = kl.detach().sum()
        if self.needs_entropy:
            assert entropy is not None
            losses = losses - self.entropy_weight * inside(mask, entropy)
        divisors, _ = self.reduction(mask)
        total = (losses / divisors).sum()
        return total, {**named, **sums, "loss": total.detach()}

    def count(self, mask: Tensor) -> Tensor:
        """Return the number of units of a batch with this loss mask: what its loss is to be divided by."""
        return self.reduction(mask)[1]


def check_entropy(objective: Objective, entropy: Tensor) -> None:
    """Raise unless the entropies can carry the gradient that the objective's bonus needs.

    Raises:
        ValueError: if they cannot.
    """
    if objective.needs_entropy and torch.is_grad_enabled() and not entropy.requires_grad and entropy.numel():
        raise ValueError(
            f"`entropy_weight` is {objective.entropy_weight}, but the entropies carry no gradient; "
            "the team has to compute them with `entropy_gradient=True`."
        )
