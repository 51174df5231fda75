"""Policy losses without a hard clip: CISPO, SAPO, VESPO. Same signature as the clipped surrogate of losses.py.

A hard clip drops the gradient of the tokens that moved most. These keep it: CISPO clips the weight of the gradient,
SAPO lets it fade, VESPO shapes it by the ratio of the whole sequence.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from m1lite.rl._checks import check_positive, check_shapes, inside
from m1lite.rl.losses import weighed
from m1lite.rl.ratios import Ratio, token_ratio

if TYPE_CHECKING:
    from torch import Tensor

_LOG_FLOOR = math.log(1e-8)
_LOG_CEILING = 20.0


def cispo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    importance: Tensor | None = None,
    low: float = 0.0,
    high: float = 5.0,
    ratio: Ratio = token_ratio,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Weigh the policy gradient by the clipped ratio, which itself gets no gradient.

    .. math:: \ell_t = -\mathrm{sg}\big(\mathrm{clip}(\rho_t, low, high)\big)\, A_t \log\pi_t

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``, of the policy that the update starts from.
        advantages: float ``(B, T)``.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.
        importance: float ``(B, T)`` or ``(B, 1)``, multiplies the losses; None: 1.
        low: least weight, at least 0.
        high: largest weight itself, not its distance from 1, above ``low``.
        ratio: ``token_ratio`` or ``sequence_ratio`` of ratios.py.

    Returns:
        Token losses ``(B, T)`` and the token sum ``cispo_clip_ratio``: weights cut where the advantage is positive.

    Raises:
        ValueError: if shapes differ or the bounds are out of range.

    References:
        MiniMax-M1, arXiv:2506.13585, equations 4 and 5. ``high`` 5: ScaleRL, arXiv:2510.13786.

    Example:
        >>> one = torch.tensor([[True]])
        >>> cispo(torch.tensor([[-1.0]]), torch.tensor([[-3.0]]), torch.tensor([[2.0]]), one)[0]
        tensor([[10.]])
    """
    check_shapes(logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    if not 0 <= low < high:
        raise ValueError(f"`low` is {low} and `high` {high}; they must be 0 <= low < high.")
    advantages = inside(mask, advantages)
    moved = ratio(logprobs, old_logprobs, mask).detach()
    losses = weighed(-moved.clamp(low, high) * advantages * inside(mask, logprobs), importance)
    return losses, {"cispo_clip_ratio": ((moved > high) & (advantages > 0)).sum(dtype=losses.dtype)}


def sapo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    importance: Tensor | None = None,
    temperature_positive: float = 1.0,
    temperature_negative: float = 1.05,
    ratio: Ratio = token_ratio,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Let the gradient fade with the distance of the ratio from 1, by a sigmoid instead of a clip.

    .. math:: \ell_t = -\frac{4}{\tau}\, \sigma\big(\tau (\rho_t - 1)\big)\, A_t,
        \quad \tau = \tau_{+} \text{ if } A_t > 0 \text{ else } \tau_{-}

    On policy the gradient is the plain one.

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``, of the policy that the update starts from.
        advantages: float ``(B, T)``.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.
        importance: float ``(B, T)`` or ``(B, 1)``, multiplies the losses; None: 1.
        temperature_positive: tau where the advantage is positive, above 0; the larger, the sooner the gradient fades.
        temperature_negative: tau elsewhere, above 0.
        ratio: ``token_ratio`` or ``sequence_ratio`` of ratios.py.

    Returns:
        Token losses ``(B, T)`` and no stats.

    Raises:
        ValueError: if shapes differ or a temperature is not above 0.

    References:
        SAPO: Soft Adaptive Policy Optimization, arXiv:2511.20347, the objective and its gate function.

    Example:
        >>> one, nil = torch.tensor([[True]]), torch.zeros(1, 1)
        >>> sapo(nil, nil, torch.tensor([[0.5]]), one)[0]
        tensor([[-1.]])
    """
    check_shapes(logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    check_positive(temperature_positive=temperature_positive, temperature_negative=temperature_negative)
    advantages = inside(mask, advantages)
    moved = ratio(logprobs, old_logprobs, mask)
    tau = torch.where(advantages > 0, temperature_positive, torch.full_like(advantages, temperature_negative))
    return weighed(-4 / tau * torch.sigmoid(tau * (moved - 1)) * advantages, importance), {}


def vespo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    importance: Tensor | None = None,
    k_positive: float = 2.0,
    decay_positive: float = 3.0,
    k_negative: float = 3.0,
    decay_negative: float = 2.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Weigh the policy gradient by a gamma-shaped function of the ratio of the whole sequence.

    .. math::
        \ell_t = -\mathrm{sg}(\varphi(w_i))\, A_t \log\pi_t, \quad \varphi(w) = w^{k} e^{\lambda (1 - w)}, \quad
        w_i = \prod_t \rho_{i,t}\, c_{i,t}

    with (k, λ) by the sign of the advantage, and :math:`c` the importance between trainer and engine, which belongs to
    the ratio here instead of multiplying the loss. A token's log-ratio is held in [-20, 20], log w in [log 1e-8, 20].

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``, of the policy that the update starts from.
        advantages: float ``(B, T)``.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.
        importance: float ``(B, T)`` or ``(B, 1)``; None: 1.
        k_positive: k where the advantage is not negative.
        decay_positive: lambda there, above 0.
        k_negative: k elsewhere.
        decay_negative: lambda elsewhere, above 0.

    Returns:
        Token losses ``(B, T)`` and the token sum ``vespo/phi_seq_mean``.

    Raises:
        ValueError: if shapes differ or a decay is not above 0.

    References:
        VESPO: Variational sequence-level soft policy optimization, arXiv:2602.10693, the gamma
        kernel; constants as in TRL.

    Example:
        >>> one, old = torch.tensor([[True]]), torch.tensor([[-1.0]])
        >>> vespo(old, old, torch.tensor([[2.0]]), one)[0]
        tensor([[2.]])
    """
    check_shapes(logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    check_positive(decay_positive=decay_positive, decay_negative=decay_negative)
    advantages = inside(mask, advantages)
    with torch.no_grad():
        log_w = inside(mask, logprobs - old_logprobs).clamp(-_LOG_CEILING, _LOG_CEILING).sum(1, keepdim=True)
        if importance is not None:
            sequence_wide = importance.shape[1] == 1 < mask.shape[1]
            logs = importance.log().clamp(_LOG_FLOOR, _LOG_CEILING)
            log_w = log_w + (logs if sequence_wide else inside(mask, logs)).sum(1, keepdim=True)
        log_w = log_w.clamp(_LOG_FLOOR, _LOG_CEILING)  # (B, 1)
        k = torch.where(advantages >= 0, k_positive, k_negative)
        decay = torch.where(advantages >= 0, decay_positive, decay_negative)
        phi = (k * log_w + decay * (1 - log_w.exp())).exp()  # (B, T), 0 far off either end
    losses = -phi * advantages * inside(mask, logprobs)
    return losses, {"vespo/phi_seq_mean": (phi * mask).sum()}
