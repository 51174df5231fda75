"""Losses per token, from log-probs and advantages: the clipped surrogate, the policy gradient, the cross-entropy.

Losses without a hard clip are in soft_losses.py, KL terms in divergences.py, losses on pairs in preferences.py. Every
function returns ``(B, T)`` values that are 0 outside the mask, never a mean: what a token weighs and what the sum is
divided by is reductions.py's. Policy losses share the signature of :class:`PolicyLoss`; their stats are token sums.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from m1lite.rl._checks import check_shapes, inside
from m1lite.rl.ratios import Ratio, token_ratio


class PolicyLoss(Protocol):
    """A loss that raises the probability of tokens with positive advantage."""

    def __call__(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        *,
        importance: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the token losses ``(B, T)`` and named token sums for the log.

        ``importance``, ``(B, T)`` or ``(B, 1)``, weighs tokens that another policy sampled (mismatch.py).
        """


def token_sum(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Add up token values, and count the tokens that they stand for.

    Args:
        values: float ``(B, T)``, 0 outside the mask.
        mask: bool ``(B, T)``, or float weights.

    Returns:
        The sum (differentiable) and the count as float, both 0-dimensional; a batch without tokens gives 0 and 0.

    Example:
        >>> token_sum(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[True, True, False]]))
        (tensor(3.), tensor(2.))
    """
    check_shapes(values, mask=mask)
    return values.sum(), mask.sum(dtype=values.dtype)


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    importance: Tensor | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ratio_cap: float | None = None,
    ratio: Ratio = token_ratio,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The pessimistic clipped importance-weighted policy loss, per token.

    .. math::
        \ell_t = -\min\big(\min(\rho_t, \delta) A_t,\
        \mathrm{clip}(\rho_t, 1 - \epsilon_{low}, 1 + \epsilon_{high}) A_t\big)

    with the ratio :math:`\rho_t` of the token (GRPO, Dr. GRPO, BNPO, DAPO) or of its sequence (GSPO, LUSPO), and the
    cap :math:`\delta`. These methods differ in the ratio and in the reduction (reductions.py).

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``, of the policy that the update starts from.
        advantages: float ``(B, T)``.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.
        importance: float ``(B, T)`` or ``(B, 1)``, multiplies the losses; None: 1.
        clip_low: below ``1 - clip_low`` a negative advantage teaches no more, in [0, 1].
        clip_high: above ``1 + clip_high`` a positive advantage teaches no more; a larger one is DAPO's clip-higher.
        ratio_cap: upper bound of the ratio also for negative advantages, above ``1 + clip_high``; None leaves it off.
        ratio: ``token_ratio`` or ``sequence_ratio`` of ratios.py.

    Returns:
        Token losses ``(B, T)`` and the token sums ``clip_ratio/low_mean``, ``clip_ratio/high_mean`` and
        ``clip_ratio/region_mean`` (either of the two).

    Raises:
        ValueError: if shapes differ or a bound is out of range.

    References:
        PPO: Schulman et al. 2017, arXiv:1707.06347, equation 7. GRPO: Shao et al. 2024, arXiv:2402.03300, equation 3.
        Clip-higher: DAPO, Yu et al. 2025, arXiv:2503.14476, section 3.1. Ratio of the sequence: GSPO, Zheng et al.
        2025, arXiv:2507.18071, equation 5. ``ratio_cap``: two-sided clipping of INTELLECT-2, arXiv:2505.07291; above
        1 + clip_high it binds for negative advantages only, as the dual clip of Ye et al. 2020, arXiv:1912.09729.

    Example:
        >>> losses, stats = clipped_surrogate(
        ...     torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[True, True]])
        ... )
        >>> losses
        tensor([[-1.2000, -1.0000]])
        >>> stats["clip_ratio/high_mean"]
        tensor(1.)
    """
    check_shapes(logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    _check_clip(clip_low, clip_high, ratio_cap)
    advantages = inside(mask, advantages)
    moved = ratio(logprobs, old_logprobs, mask)  # (B, T) or (B, 1)
    clipped = moved.clamp(1 - clip_low, 1 + clip_high)
    if ratio_cap is not None:
        moved = moved.clamp(max=ratio_cap)
    losses = weighed(-torch.minimum(moved * advantages, clipped * advantages), importance)
    with torch.no_grad():
        low = (moved < 1 - clip_low) & (advantages < 0)
        high = (moved > 1 + clip_high) & (advantages > 0)
        stats = {
            "clip_ratio/low_mean": low.sum(dtype=losses.dtype),
            "clip_ratio/high_mean": high.sum(dtype=losses.dtype),
            "clip_ratio/region_mean": (low | high).sum(dtype=losses.dtype),
        }
    return losses, stats


def policy_gradient(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    importance: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The plain policy gradient, per token: right for one update per rollout only.

    .. math:: \ell_t = -A_t \log\pi_t

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``; not read, here so that the function can stand where any policy loss can.
        advantages: float ``(B, T)``.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.
        importance: float ``(B, T)`` or ``(B, 1)``, multiplies the losses; None: 1.

    Returns:
        Token losses ``(B, T)`` and no stats.

    Raises:
        ValueError: if shapes differ.

    References:
        Williams 1992, Machine Learning 8, 229-256, section 4 (REINFORCE).

    Example:
        >>> policy_gradient(torch.tensor([[-2.0]]), torch.zeros(1, 1), torch.tensor([[0.5]]), torch.tensor([[True]]))
        (tensor([[1.]]), {})
    """
    check_shapes(logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    return weighed(-inside(mask, advantages) * inside(mask, logprobs), importance), {}


def weighed(losses: Tensor, importance: Tensor | None) -> Tensor:
    """Multiply token losses ``(B, T)`` by weights ``(B, T)`` or ``(B, 1)``, if there are any."""
    return losses if importance is None else losses * importance


def cross_entropy(logprobs: Tensor, mask: Tensor) -> Tensor:
    r"""Supervised loss: the negative log-likelihood of the tokens to imitate, per token.

    .. math:: \ell_t = -w_t \log\pi_t

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        mask: bool ``(B, T)``, or float weights of at least 0 (then :func:`token_sum` counts weights).

    Returns:
        ``(B, T)``, 0 where the mask is false or the weight 0; what stands there is not read.

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> losses = cross_entropy(torch.tensor([[-1.0, -2.0]]), torch.tensor([[1.0, 3.0]]))
        >>> losses
        tensor([[1., 6.]])
    """
    check_shapes(logprobs, mask=mask)
    return -inside(mask, logprobs) * mask


def _check_clip(clip_low: float, clip_high: float, ratio_cap: float | None) -> None:
    if not 0 <= clip_low <= 1:
        raise ValueError(f"`clip_low` is {clip_low}; it must be in [0, 1], since the ratio is never below 0.")
    if clip_high < 0:
        raise ValueError(f"`clip_high` is {clip_high}; it must be at least 0.")
    if ratio_cap is not None and ratio_cap <= 1 + clip_high:
        raise ValueError(f"`ratio_cap` is {ratio_cap}; it must be above 1 + clip_high = {1 + clip_high}.")
