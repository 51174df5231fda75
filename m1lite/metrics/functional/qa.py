"""Question answering: right or wrong, for options given by index and for numbers. Texts are read elsewhere."""

from __future__ import annotations

from torch import Tensor

from m1lite.metrics.functional._inputs import as_float, check_same_shape


def choice_match(prediction: Tensor, target: Tensor) -> Tensor:
    """Score 1 where the chosen option is the right one.

    Args:
        prediction: integer ``(...)``, index of the chosen option; negative for no answer.
        target: integer ``(...)``, index of the right option.

    Returns:
        float32 ``(...)``, 1 or 0; 0 for no answer.

    Raises:
        TypeError: if either is not an integer tensor.
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> choice_match(torch.tensor([2, 1, -1]), torch.tensor([2, 0, 3]))
        tensor([1., 0., 0.])
    """
    check_same_shape(prediction, target)
    for name, values in (("prediction", prediction), ("target", target)):
        if values.is_floating_point() or values.is_complex():
            raise TypeError(f"`{name}` has dtype {values.dtype}; options are integer indices, -1 for no answer.")
    return ((prediction == target) & (prediction >= 0)).float()


def numeric_match(prediction: Tensor, target: Tensor, *, tolerance: float = 0.0) -> Tensor:
    r"""Score 1 where a number is right.

    .. math:: \mathbb 1[|\hat y - y| \le \mathrm{tolerance}]

    Args:
        prediction: ``(...)``; NaN for no answer.
        target: ``(...)``, the true numbers.
        tolerance: largest error that still counts as right, in the unit of the numbers, at least 0.

    Returns:
        float32 ``(...)``, 1 or 0; 0 where either is NaN or infinite.

    Raises:
        ValueError: if the shapes differ or the tolerance is negative.

    Example:
        >>> import torch
        >>> numeric_match(torch.tensor([3.0, 4.0, float("nan")]), torch.tensor([3.0, 3.0, 3.0]))
        tensor([1., 0., 0.])
    """
    check_same_shape(prediction, target)
    if not tolerance >= 0:
        raise ValueError(f"`tolerance` is {tolerance}; it must be at least 0.")
    return ((as_float(prediction) - as_float(target)).abs() <= tolerance).float()
