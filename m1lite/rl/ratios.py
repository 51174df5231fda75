"""How far the policy has moved since the update began: one ratio per token, or one per sequence.

A ratio is a part of a policy loss (losses.py, soft_losses.py) and of a KL term (divergences.py), passed to either. The
ratio between trainer and engine is another matter: mismatch.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from m1lite.rl._checks import check_shapes, inside

if TYPE_CHECKING:
    from torch import Tensor


class Ratio(Protocol):
    """Probability under the policy over that at the start of the update."""

    def __call__(self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
        """Return ``(B, T)`` or ``(B, 1)``, with gradient; 1 where nothing was sampled."""


def token_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    r"""Take every token's own ratio.

    .. math:: \rho_{i,t} = e^{\log\pi_{i,t} - \log\pi^{old}_{i,t}}

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``, of the policy that the update starts from.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.

    Returns:
        ``(B, T)``, above 0; 1 outside the mask.

    Raises:
        ValueError: if shapes differ.

    References:
        GRPO: Shao et al. 2024, arXiv:2402.03300, equation 3.

    Example:
        >>> import torch
        >>> token_ratio(torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), torch.tensor([[True, True]]))
        tensor([[1.6487, 1.0000]])
    """
    check_shapes(logprobs, old_logprobs=old_logprobs, mask=mask)
    return inside(mask, logprobs - old_logprobs).exp()


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    r"""Take one ratio per sequence: the geometric mean of its tokens' ratios.

    .. math:: s_i = \exp\Big(\frac{1}{n_i} \sum_t m_{i,t} (\log\pi_{i,t} - \log\pi^{old}_{i,t})\Big),
        \quad n_i = \max(1, \textstyle\sum_t m_{i,t})

    Args:
        logprobs: float ``(B, T)``, the current policy's, with gradient.
        old_logprobs: float ``(B, T)``, of the policy that the update starts from.
        mask: bool ``(B, T)``, true on the tokens that the policy sampled; what stands elsewhere is not read.

    Returns:
        ``(B, 1)``, above 0; 1 for a row without sampled tokens.

    Raises:
        ValueError: if shapes differ.

    References:
        GSPO: Zheng et al. 2025, arXiv:2507.18071, equation 7.

    Example:
        >>> import torch
        >>> sequence_ratio(torch.tensor([[0.5, -0.1]]), torch.zeros(1, 2), torch.tensor([[True, True]]))
        tensor([[1.2214]])
    """
    check_shapes(logprobs, old_logprobs=old_logprobs, mask=mask)
    moved = inside(mask, logprobs - old_logprobs).sum(1, keepdim=True)  # (B, T) -> (B, 1)
    return (moved / mask.sum(1, keepdim=True).clamp(min=1)).exp()
