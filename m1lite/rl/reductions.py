"""From losses per token to one number: what a row is divided by, and what the sum of the rows is divided by.

A reduction gives divisors and a number of units: loss = sum(token losses / divisor of their row) / units. Numerators
and units add up over parts of a batch, so micro-batches and ranks add them up and divide once, by the units of the
whole step. Divisors are whole numbers, so that they are exact in any dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from m1lite.rl._checks import check_positive

if TYPE_CHECKING:
    from torch import Tensor


class Reduction(Protocol):
    """How the losses of tokens become one number."""

    def __call__(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return divisors ``(B, 1)``, at least 1, and the number of units, 0-dimensional, both float32."""


def token_mean(mask: Tensor) -> tuple[Tensor, Tensor]:
    r"""Let every sampled token count the same.

    .. math:: L = \frac{\sum_{i,t} m_{i,t}\, \ell_{i,t}}{\sum_{i,t} m_{i,t}}

    Args:
        mask: bool ``(B, T)``, true on the tokens that the policy sampled.

    Returns:
        Divisors ``(B, 1)``, all 1, and the number of tokens.

    References:
        DAPO: Yu et al. 2025, arXiv:2503.14476, equation 8. With several minibatches, BNPO divides by the tokens of each
        minibatch, DAPO by the mean number over the minibatches: see ``Objective``.

    Example:
        >>> token_mean(torch.tensor([[True, True], [True, False]]))
        (tensor([[1.],
                [1.]]), tensor(3.))
    """
    return mask.new_ones(len(mask), 1, dtype=torch.float32), mask.sum(dtype=torch.float32)


def sequence_mean(mask: Tensor, *, count_empty: bool = True) -> tuple[Tensor, Tensor]:
    r"""Let every sequence count the same: the mean over sequences of the mean over a sequence's tokens.

    .. math:: L = \frac{1}{B} \sum_i \frac{1}{n_i} \sum_t m_{i,t}\, \ell_{i,t}, \quad n_i = \max(1, \sum_t m_{i,t})

    Args:
        mask: bool ``(B, T)``, true on the tokens that the policy sampled.
        count_empty: whether a sequence without sampled tokens counts as one whose mean is 0 (as in TRL), or not at all
            (as in verl).

    Returns:
        Divisors ``(B, 1)``, the row's tokens, and the number of sequences.

    References:
        GRPO: Shao et al. 2024, arXiv:2402.03300, equation 3.

    Example:
        >>> sequence_mean(torch.tensor([[True, True], [True, False]]))
        (tensor([[2.],
                [1.]]), tensor(2.))
    """
    tokens = mask.sum(1, keepdim=True, dtype=torch.float32)
    counted = torch.ones_like(tokens) if count_empty else (tokens > 0).float()
    return tokens.clamp(min=1), counted.sum()


def sequence_sum(mask: Tensor) -> tuple[Tensor, Tensor]:
    r"""Take the mean over sequences of the sum over a sequence's tokens.

    .. math:: L = \frac{1}{B} \sum_i \sum_t m_{i,t}\, \ell_{i,t}

    Args:
        mask: bool ``(B, T)``, true on the tokens that the policy sampled.

    Returns:
        Divisors ``(B, 1)``, all 1, and the number of rows.

    References:
        LUSPO: arXiv:2602.05261, with the ratio of a sequence (``ratios.sequence_ratio``): the loss of a sequence is
        multiplied by its length, which GSPO's mean takes away.

    Example:
        >>> sequence_sum(torch.tensor([[True, True], [True, False]]))[1]
        tensor(2.)
    """
    return mask.new_ones(len(mask), 1, dtype=torch.float32), torch.tensor(float(len(mask)), device=mask.device)


def fixed_length(mask: Tensor, *, length: int) -> tuple[Tensor, Tensor]:
    r"""Divide by a constant, so that no length is favoured.

    .. math:: L = \frac{1}{B L_{max}} \sum_{i,t} m_{i,t}\, \ell_{i,t}

    Args:
        mask: bool ``(B, T)``, true on the tokens that the policy sampled.
        length: L_max, the most tokens that a trajectory can hold; scales the learning rate, and no more.

    Returns:
        Divisors ``(B, 1)``, all ``length``, and the number of rows.

    Raises:
        ValueError: if ``length`` is not above 0.

    References:
        Dr. GRPO: Liu et al. 2025, arXiv:2503.20783, section 3.2.

    Example:
        >>> fixed_length(torch.tensor([[True, True], [True, False]]), length=4)
        (tensor([[4.],
                [4.]]), tensor(2.))
    """
    check_positive(length=length)
    divisors = mask.new_full((len(mask), 1), length, dtype=torch.float32)
    return divisors, torch.tensor(float(len(mask)), device=mask.device)
