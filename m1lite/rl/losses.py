"""Losses per token, from log-probs and advantages. The caller adds them up and divides by a global count.

Every function returns ``(B, T)`` values that are 0 outside the mask, never a mean: micro-batches and ranks add
:func:`token_sum` of their part, and one division by the count over all of them gives the mean. Policy losses share the
signature of :class:`PolicyLoss`; their stats are token sums too, to be divided by the same count.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class PolicyLoss(Protocol):
    """A loss that raises the probability of tokens with positive advantage."""

    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the token losses ``(B, T)`` and named token sums for the log."""


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
    _check_shapes(values, mask=mask)
    return values.sum(), mask.sum(dtype=values.dtype)


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ratio_cap: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The pessimistic clipped importance-weighted policy loss, per token.

    .. math::
        \ell_t = -\min\big(\min(\rho_t, \delta) A_t,\
        \mathrm{clip}(\rho_t, 1 - \epsilon_{low}, 1 + \epsilon_{high}) A_t\big)

    with the ratio :math:`\rho_t = e^{\log\pi_t - \log\pi^{old}_t}` and the cap :math:`\delta`.

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``, of the policy that the update starts from.
        advantages: float ``(B, T)``.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.
        clip_low: below ``1 - clip_low`` a negative advantage teaches no more, in [0, 1].
        clip_high: above ``1 + clip_high`` a positive advantage teaches no more; a larger one is DAPO's clip-higher.
        ratio_cap: upper bound of the ratio also for negative advantages, above ``1 + clip_high``; None leaves it off.

    Returns:
        Token losses ``(B, T)`` and the token sums ``clip_ratio/low_mean``, ``clip_ratio/high_mean`` and
        ``clip_ratio/region_mean`` (either of the two).

    Raises:
        ValueError: if shapes differ or a bound is out of range.

    References:
        Schulman et al. 2017, arXiv:1707.06347, equation 7. Clip-higher: Yu et al. 2025, arXiv:2503.14476, section 3.1.
        ``ratio_cap``: the dual clip of Ye et al. 2020, arXiv:1912.09729.

    Example:
        >>> losses, stats = clipped_surrogate(
        ...     torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[True, True]])
        ... )
        >>> losses
        tensor([[-1.2000, -1.0000]])
        >>> stats["clip_ratio/high_mean"]
        tensor(1.)
    """
    _check_shapes(logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    _check_clip(clip_low, clip_high, ratio_cap)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    advantages = torch.where(mask, advantages, 0.0)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    if ratio_cap is not None:
        ratio = ratio.clamp(max=ratio_cap)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    with torch.no_grad():
        low = (ratio < 1 - clip_low) & (advantages < 0)
        high = (ratio > 1 + clip_high) & (advantages > 0)
        stats = {
            "clip_ratio/low_mean": low.sum(dtype=losses.dtype),
            "clip_ratio/high_mean": high.sum(dtype=losses.dtype),
            "clip_ratio/region_mean": (low | high).sum(dtype=losses.dtype),
        }
    return losses, stats


def policy_gradient(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The plain policy gradient, per token: right for one update per rollout only.

    .. math:: \ell_t = -A_t \log\pi_t

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``; not read, here so that the function can stand where any policy loss can.
        advantages: float ``(B, T)``.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.

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
    _check_shapes(logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    return -torch.where(mask, advantages, 0.0) * torch.where(mask, logprobs, 0.0), {}


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> Tensor:
    r"""Unbiased, never negative estimate of KL(policy ‖ reference) from one sample, per token.

    .. math:: k_3 = e^{x} - x - 1, \quad x = \log\pi^{ref}_t - \log\pi_t

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        reference_logprobs: float ``(B, T)``, the frozen reference's.
        mask: bool ``(B, T)``; what stands outside is not read.

    Returns:
        ``(B, T)``, 0 outside the mask.

    Raises:
        ValueError: if shapes differ.

    References:
        Schulman 2020, "Approximating KL divergence"; Shao et al. 2024, arXiv:2402.03300, equation 4. Ours is not
        clamped.

    Example:
        >>> kl_k3(torch.tensor([[-1.0]]), torch.tensor([[-2.0]]), torch.tensor([[True]]))
        tensor([[0.3679]])
    """
    _check_shapes(logprobs, reference_logprobs=reference_logprobs, mask=mask)
    log_ratio = torch.where(mask, reference_logprobs - logprobs, 0.0)
    return torch.expm1(log_ratio) - log_ratio  # expm1 keeps the digits where policy and reference nearly agree


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
    _check_shapes(logprobs, mask=mask)
    return -torch.where(mask > 0, logprobs, 0.0) * mask


def _check_shapes(first: Tensor, **others: Tensor) -> None:
    for name, other in others.items():
        if first.ndim != 2 or other.shape != first.shape:
            raise ValueError(
                f"`{name}` has shape {tuple(other.shape)}, but the log-probs have {tuple(first.shape)}; both (B, T)."
            )


def _check_clip(clip_low: float, clip_high: float, ratio_cap: float | None) -> None:
    if not 0 <= clip_low <= 1:
        raise ValueError(f"`clip_low` is {clip_low}; it must be in [0, 1], since the ratio is never below 0.")
    if clip_high < 0:
        raise ValueError(f"`clip_high` is {clip_high}; it must be at least 0.")
    if ratio_cap is not None and ratio_cap <= 1 + clip_high:
        raise ValueError(f"`ratio_cap` is {ratio_cap}; it must be above 1 + clip_high = {1 + clip_high}.")
