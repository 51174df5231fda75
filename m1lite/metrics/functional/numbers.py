"""Numbers as answers: how close a number is, graded by relative error. Right or wrong stands in functional/qa.py."""

from __future__ import annotations

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float, check_same_shape

_CONFIDENCES = (*(0.5 + index * ((0.95 - 0.5) / 9) for index in range(9)), 0.95)
"""Ten steps from 0.5 to 0.95. The ninth is one step of float64 below 0.9, as in the official list."""
_TOLERANCES = tuple(1 - confidence for confidence in _CONFIDENCES)


def mean_relative_accuracy(prediction: Tensor, target: Tensor, *, strict: bool = False) -> Tensor:
    r"""Share of ten confidence levels at which a number is close enough to the true one.

    .. math:: \frac{1}{10} \sum_{\theta \in \{0.5, 0.55, \dots, 0.95\}} \mathbb 1[|\hat y - y| / |y| \le 1 - \theta]

    The tolerances are rounded to the dtype of the error and compared in it, so that at errors of exact multiples of 5 %
    the last digit decides: 45 % scores 0.2 in float32, but 0.1 in float64, where 1 - 0.55 lies below 0.45.

    Args:
        prediction: ``(...)``, in the unit of ``target``; NaN for no answer. Integers and half precision are cast to
            float32.
        target: ``(...)``, the true numbers.
        strict: count only errors *below* a tolerance, not equal to it.

    Returns:
        ``(...)``, a multiple of 0.1 in [0, 1]; float64 where an input is, else float32. 0 where either is NaN or
        infinite. A true number of 0 asks for exactly 0: 1 for that, 0 for all else. A negative one counts by its size.

    Raises:
        ValueError: if the shapes differ.

    References:
        Yang et al. 2024, arXiv:2412.14171 (VSI-Bench), section 3; the formula there is strict, its code
        (vision-x-nyu/thinking-in-space 51e089c) is not, divides by :math:`y` with its sign (a negative number is always
        right) and fails at 0.

    Example:
        >>> mean_relative_accuracy(torch.tensor([10.0, 8.7, 4.0]), torch.tensor([10.0, 10.0, 10.0]))
        tensor([1.0000, 0.8000, 0.0000])
    """
    check_same_shape(prediction, target)
    prediction, target = as_float(prediction), as_float(target)
    difference = (prediction - target).abs()
    error = torch.where(difference == 0, difference, difference / target.abs())
    tolerances = torch.tensor(_TOLERANCES, dtype=error.dtype, device=error.device)
    close = error[..., None] < tolerances if strict else error[..., None] <= tolerances  # (...) -> (..., 10)
    return close.sum(-1) / torch.tensor(len(_TOLERANCES), dtype=error.dtype, device=error.device)
