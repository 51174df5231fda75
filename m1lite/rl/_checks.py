"""Checks that the files of this folder share: shapes and masks of token tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def check_shapes(first: Tensor, **others: Tensor) -> None:
    """Raise unless all tensors are ``(B, T)`` as the first is."""
    for name, other in others.items():
        if first.ndim != 2 or other.shape != first.shape:
            raise ValueError(
                f"`{name}` has shape {tuple(other.shape)}, but the log-probs have {tuple(first.shape)}; both (B, T)."
            )


def inside(mask: Tensor, values: Tensor) -> Tensor:
    """Return the values with 0 where the mask is false, whatever stands there, NaN included."""
    return torch.where(mask > 0, values, 0.0)


def check_positive(**values: float) -> None:
    """Raise unless every number is above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"`{name}` is {value}; it must be above 0.")
