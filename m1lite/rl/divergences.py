"""How far the policy is from the frozen reference, estimated from the sampled tokens: k1, k2, k3, in loss or in reward.

An estimate ``k`` of KL(policy ‖ reference) enters a loss as ``beta * k`` per token, or a reward as ``-beta * sum(k)``.
The two want different estimators: what counts in a reward is the value (k1), what counts in a loss is the gradient,
which is right on policy for k2, that of KL(reference ‖ policy) for k3, and 0 on average for k1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from m1lite.rl._checks import check_shapes, inside
from m1lite.rl.ratios import Ratio, token_ratio

if TYPE_CHECKING:
    from torch import Tensor


class Divergence(Protocol):
    """A KL term of the loss."""

    def __call__(self, logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, old_logprobs: Tensor) -> Tensor:
        """Return the estimate per token, ``(B, T)``, 0 outside the mask; most do not read ``old_logprobs``."""


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, old_logprobs: Tensor | None = None) -> Tensor:
    r"""Unbiased estimate of KL(policy ‖ reference) of high variance, per token; may be negative.

    .. math:: k_1 = -x, \quad x = \log\pi^{ref}_t - \log\pi_t

    Its gradient is that of the log-prob alone, 0 on average over samples of the policy: as a loss it teaches nothing.
    It is the one for rewards, see :func:`penalised_rewards`.

    Args:
        logprobs: float ``(B, T)``, the current policy's.
        reference_logprobs: float ``(B, T)``, the frozen reference's.
        mask: bool ``(B, T)``; what stands outside is not read.
        old_logprobs: not read.

    Returns:
        ``(B, T)``, 0 outside the mask.

    Raises:
        ValueError: if shapes differ.

    References:
        Schulman 2020, "Approximating KL divergence".

    Example:
        >>> kl_k1(torch.tensor([[-1.0]]), torch.tensor([[-2.0]]), torch.tensor([[True]]))
        tensor([[1.]])
    """
    check_shapes(logprobs, reference_logprobs=reference_logprobs, mask=mask)
    return inside(mask, logprobs - reference_logprobs)


def kl_k2(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, old_logprobs: Tensor | None = None) -> Tensor:
    r"""Biased estimate of KL(policy ‖ reference) of low variance, per token; its gradient is unbiased on policy.

    .. math:: k_2 = \tfrac{1}{2} x^2, \quad x = \log\pi^{ref}_t - \log\pi_t

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        reference_logprobs: float ``(B, T)``, the frozen reference's.
        mask: bool ``(B, T)``; what stands outside is not read.
        old_logprobs: not read.

    Returns:
        ``(B, T)``, at least 0, 0 outside the mask.

    Raises:
        ValueError: if shapes differ.

    References:
        Schulman 2020, "Approximating KL divergence".

    Example:
        >>> kl_k2(torch.tensor([[-1.0]]), torch.tensor([[-2.0]]), torch.tensor([[True]]))
        tensor([[0.5000]])
    """
    check_shapes(logprobs, reference_logprobs=reference_logprobs, mask=mask)
    return 0.5 * inside(mask, reference_logprobs - logprobs).square()


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, old_logprobs: Tensor | None = None) -> Tensor:
    r"""Unbiased, never negative estimate of KL(policy ‖ reference) from one sample, per token.

    .. math:: k_3 = e^{x} - x - 1, \quad x = \log\pi^{ref}_t - \log\pi_t

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        reference_logprobs: float ``(B, T)``, the frozen reference's.
        mask: bool ``(B, T)``; what stands outside is not read.
        old_logprobs: not read.

    Returns:
        ``(B, T)``, at least 0, 0 outside the mask.

    Raises:
        ValueError: if shapes differ.

    References:
        Schulman 2020, "Approximating KL divergence"; Shao et al. 2024, arXiv:2402.03300, equation 4. Ours is not
        clamped.

    Example:
        >>> kl_k3(torch.tensor([[-1.0]]), torch.tensor([[-2.0]]), torch.tensor([[True]]))
        tensor([[0.3679]])
    """
    check_shapes(logprobs, reference_logprobs=reference_logprobs, mask=mask)
    log_ratio = inside(mask, reference_logprobs - logprobs)
    return torch.expm1(log_ratio) - log_ratio  # expm1 keeps the digits where policy and reference nearly agree


def off_policy_kl(
    logprobs: Tensor,
    reference_logprobs: Tensor,
    mask: Tensor,
    *,
    old_logprobs: Tensor,
    estimate: Divergence = kl_k3,
    ratio: Ratio = token_ratio,
) -> Tensor:
    r"""Weigh an estimate by the policy's ratio: unbiased in value and gradient also after the first step of an update.

    .. math:: \rho_t\, k_t

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient, which flows through the ratio too.
        reference_logprobs: float ``(B, T)``, the frozen reference's.
        mask: bool ``(B, T)``; what stands outside is not read.
        old_logprobs: float ``(B, T)``, of the policy that the update starts from.
        estimate: of the divergence.
        ratio: ``token_ratio`` or ``sequence_ratio``; not clipped.

    Returns:
        ``(B, T)``, 0 outside the mask.

    Raises:
        ValueError: if shapes differ.

    References:
        DeepSeek-V3.2, arXiv:2512.02556, section 3.1 (unbiased KL estimate).

    Example:
        >>> half, one = torch.tensor([[-1.0]]), torch.tensor([[True]])
        >>> off_policy_kl(half, torch.tensor([[-2.0]]), one, old_logprobs=half)
        tensor([[0.3679]])
    """
    values = estimate(logprobs, reference_logprobs, mask, old_logprobs=old_logprobs)
    return values * ratio(logprobs, old_logprobs, mask)


def penalised_rewards(
    rewards: Tensor,
    logprobs: Tensor,
    reference_logprobs: Tensor,
    mask: Tensor,
    *,
    beta: float,
    estimate: Divergence = kl_k1,
) -> Tensor:
    r"""Take the divergence of a whole trajectory off its reward, instead of adding it to the loss.

    .. math:: r'_i = r_i - \beta \sum_t m_{i,t}\, k_{i,t}

    Args:
        rewards: float ``(B,)``, one per trajectory; a missing one is NaN and stays so.
        logprobs: float ``(B, T)``, under which the tokens were sampled; no gradient flows.
        reference_logprobs: float ``(B, T)``, the frozen reference's.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled.
        beta: at least 0.
        estimate: of the divergence; k1 is unbiased in value.

    Returns:
        ``(B,)``, in the dtype of ``rewards``.

    Raises:
        ValueError: if ``beta`` is negative or shapes differ.

    References:
        Ouyang et al. 2022, arXiv:2203.02155, equation 2; RLOO: Ahmadian et al. 2024, arXiv:2402.14740, section 3.

    Example:
        >>> one = torch.tensor([[True]])
        >>> penalised_rewards(torch.tensor([1.0]), torch.tensor([[-1.0]]), torch.tensor([[-2.0]]), one, beta=0.5)
        tensor([0.5000])
    """
    if beta < 0:
        raise ValueError(f"`beta` is {beta}; the weight of the KL term must be at least 0.")
    if rewards.shape != mask.shape[:1]:
        raise ValueError(f"`rewards` has shape {tuple(rewards.shape)}; it must be ({len(mask)},), one per row.")
    with torch.no_grad():
        divergence = estimate(logprobs, reference_logprobs, mask, old_logprobs=logprobs).sum(1)
    return rewards - beta * divergence.to(rewards.dtype)


def penalised_turns(
    rewards: Tensor,
    logprobs: Tensor,
    reference_logprobs: Tensor,
    mask: Tensor,
    turns: Tensor,
    *,
    beta: float,
    estimate: Divergence = kl_k1,
) -> Tensor:
    r"""Take the divergence of each turn off that turn's reward; the form of :func:`penalised_rewards` for turns.

    .. math:: r'_{i,u} = r_{i,u} - \beta \sum_{t \in u} m_{i,t}\, k_{i,t}

    A turn pays for its own tokens: where rewards are returns that look ahead, the divergence of later turns is not in
    them. Over the turns that have a reward the penalties add up to that of the trajectory.

    Args:
        rewards: float ``(B, U)``, one per turn; a missing one is NaN and stays so.
        logprobs: float ``(B, T)``, under which the tokens were sampled; no gradient flows.
        reference_logprobs: float ``(B, T)``, the frozen reference's.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled.
        turns: long ``(B, T)``, which turn a sampled token belongs to, in [0, U); not read elsewhere.
        beta: at least 0.
        estimate: of the divergence; k1 is unbiased in value.

    Returns:
        ``(B, U)``, in the dtype of ``rewards``.

    Raises:
        ValueError: if ``beta`` is negative, shapes differ, or a token's turn has no place.

    References:
        The penalty is that of Ouyang et al. 2022, arXiv:2203.02155, equation 2; cutting it by turns is our reading.

    Example:
        >>> one, sampled = torch.tensor([[True, True]]), torch.tensor([[-1.0, -1.0]])
        >>> reference, turns = torch.tensor([[-2.0, -4.0]]), torch.tensor([[0, 1]])
        >>> penalised_turns(torch.tensor([[1.0, 1.0]]), sampled, reference, one, turns, beta=0.5)
        tensor([[ 0.5000, -0.5000]])
    """
    if beta < 0:
        raise ValueError(f"`beta` is {beta}; the weight of the KL term must be at least 0.")
    if rewards.ndim != 2 or rewards.shape[:1] != mask.shape[:1]:
        raise ValueError(f"`rewards` has shape {tuple(rewards.shape)}; it must be ({len(mask)}, turns).")
    check_shapes(logprobs, turns=turns)
    places = torch.where(mask, turns, 0)
    if bool(((places < 0) | (places >= rewards.shape[1])).any()):
        raise ValueError(f"`turns` goes up to {int(places.max())}, but `rewards` has {rewards.shape[1]} turns.")
    with torch.no_grad():
        divergence = estimate(logprobs, reference_logprobs, mask, old_logprobs=logprobs)
        by_turn = divergence.new_zeros(rewards.shape).scatter_add_(1, places, divergence)
    return rewards - beta * by_turn.to(rewards.dtype)
