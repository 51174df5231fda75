"""The engine that samples and the trainer that learns disagree: weights that correct for it, and how much they cost.

Log-probs of one set of weights differ between two implementations, and rollouts may be some versions old. Tokens
must come from the whole distribution: truncated sampling, which would bias every weight, is refused by the engines'
``Sampling``. What happens between the start of an update and its later steps is another matter: ratios.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import torch

from m1lite.rl._checks import check_shapes, inside

if TYPE_CHECKING:
    from torch import Tensor

Level = Literal["token", "sequence_sum", "sequence_mean"]


class Correction(Protocol):
    """Weights for tokens that another policy sampled."""

    def __call__(self, logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor) -> Tensor:
        """Return weights ``(B, T)`` or ``(B, 1)``, without gradient."""


class SequenceFilter(Protocol):
    """Which sequences may teach."""

    def __call__(self, logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """Return bool ``(B, T)``, true on what is kept."""


@torch.no_grad()
def importance_weights(
    logprobs: Tensor,
    sampled_logprobs: Tensor,
    mask: Tensor,
    *,
    level: Level = "token",
    outside: Literal["truncate", "mask"] = "truncate",
    low: float = 0.0,
    high: float = 2.0,
) -> Tensor:
    r"""Weigh each token by its probability under the trainer over that under the engine, within bounds.

    .. math:: c_{i,t} = e^{d_{i,t}}, \quad d = \log\pi^{old} - \log\pi^{engine}

    of the token, of the sum over its sequence (the exact weight of a sequence), or of the mean over it (its geometric
    mean, which does not grow with the length).

    Args:
        logprobs: float ``(B, T)``, the trainer's, at the start of the update.
        sampled_logprobs: float ``(B, T)``, the engine's; NaN where it gave none, which counts as no difference.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.
        level: what one weight stands for.
        outside: what becomes of a weight outside the bounds: moved to the bound, or set to 0.
        low: least weight, at least 0.
        high: largest weight, above ``low``.

    Returns:
        float ``(B, T)`` for tokens, ``(B, 1)`` for sequences; 1 outside the mask.

    Raises:
        ValueError: if shapes differ, an option is not one of its values, or the bounds are out of range.

    References:
        Truncated: Ionides 2008, J. Comput. Graph. Stat. 17(2); for engines of language models Yao et al. 2025, "Your
        efficient RL framework secretly brings you off-policy RL training". Masked, and by sequence: Liu et al. 2025,
        "When speed kills stability".

    Example:
        >>> zero, mask = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
        >>> importance_weights(torch.tensor([[0.5, 1.5]]), zero, mask, high=3.0)
        tensor([[1.6487, 3.0000]])
        >>> importance_weights(torch.tensor([[0.5, 1.5]]), zero, mask, level="sequence_mean", high=3.0)
        tensor([[2.7183]])
        >>> importance_weights(torch.tensor([[0.5, 1.5]]), zero, mask, outside="mask", high=3.0)
        tensor([[1.6487, 0.0000]])
    """
    check_shapes(logprobs, sampled_logprobs=sampled_logprobs, mask=mask)
    if level not in ("token", "sequence_sum", "sequence_mean"):
        raise ValueError(f"`level` is {level!r}; it must be 'token', 'sequence_sum' or 'sequence_mean'.")
    if outside not in ("truncate", "mask"):
        raise ValueError(f"`outside` is {outside!r}; it must be 'truncate' or 'mask'.")
    if not 0 <= low < high:
        raise ValueError(f"`low` is {low} and `high` {high}; they must be 0 <= low < high.")
    difference = _difference(logprobs, sampled_logprobs, mask)
    if level != "token":
        difference = difference.sum(1, keepdim=True)  # (B, T) -> (B, 1)
    if level == "sequence_mean":
        difference = difference / mask.sum(1, keepdim=True).clamp(min=1)
    weights = difference.exp()
    if outside == "truncate":
        return weights.clamp(low, high)
    return torch.where((weights >= low) & (weights <= high), weights, 0.0)


@torch.no_grad()
def effective_sample_size(weights: Tensor, mask: Tensor) -> Tensor:
    r"""Return the share of the tokens that is left when they count by their weights.

    .. math:: \frac{(\sum c)^2}{n \sum c^2}

    Args:
        weights: float ``(B, T)`` or ``(B, 1)``, at least 0.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled.

    Returns:
        0-dimensional, in [0, 1]; 1 for equal weights, 0 where all are 0, NaN without tokens.

    References:
        Kish 1965, Survey sampling, section 8.2.

    Example:
        >>> effective_sample_size(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, True]]))
        tensor(0.5000)
    """
    kept = weights.expand(mask.shape)[mask]
    if not len(kept):
        return torch.tensor(float("nan"), device=weights.device)
    return kept.sum().square() / (len(kept) * kept.square().sum()).clamp(min=torch.finfo(kept.dtype).tiny)


@torch.no_grad()
def off_policy_mask(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, threshold: float
) -> Tensor:
    r"""Drop bad sequences that the policy would hardly write any more; good ones always teach.

    .. math:: A_{i,t} \ge 0 \ \lor\ \frac{1}{n_i} \sum_t m_{i,t} (\log\pi^{engine}_{i,t} - \log\pi_{i,t}) \le \delta

    Args:
        logprobs: float ``(B, T)``, the current policy's.
        sampled_logprobs: float ``(B, T)``, the engine's; NaN where it gave none, which counts as no difference.
        advantages: float ``(B, T)``.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.
        threshold: delta, above 0, in nats per token.

    Returns:
        bool ``(B, T)``, true on what is kept.

    Raises:
        ValueError: if shapes differ or the threshold is not above 0.

    References:
        DeepSeek-V3.2, arXiv:2512.02556, section 3.1 (off-policy sequence masking).

    Example:
        >>> sampled, advantages = torch.tensor([[-1.0], [-1.0]]), torch.tensor([[-1.0], [1.0]])
        >>> off_policy_mask(torch.full((2, 1), -3.0), sampled, advantages, advantages != 0, threshold=0.5)
        tensor([[False],
                [ True]])
    """
    check_shapes(logprobs, sampled_logprobs=sampled_logprobs, advantages=advantages, mask=mask)
    if not threshold > 0:
        raise ValueError(f"`threshold` is {threshold}; it must be above 0 (nats per token), for example 0.5.")
    moved = -_difference(logprobs, sampled_logprobs, mask).sum(1, keepdim=True)
    return (inside(mask, advantages) >= 0) | (moved / mask.sum(1, keepdim=True).clamp(min=1) <= threshold)


def _difference(logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor) -> Tensor:
    return inside(mask, torch.where(sampled_logprobs.isnan(), 0.0, logprobs - sampled_logprobs))
