"""Casts and shape checks that the functionals share."""

from __future__ import annotations

import torch
from torch import Tensor


def as_float(values: Tensor) -> Tensor:
    """Cast integers, bools and half precision to float32 (bfloat16 steps are 16 s at one hour); keep float64."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def check_pairs(prediction: Tensor, target: Tensor, *, width: int) -> None:
    """Refuse tensors whose last dimension does not hold ``width`` numbers."""
    for name, values in (("prediction", prediction), ("target", target)):
        if values.ndim == 0 or values.shape[-1] != width:
            raise ValueError(f"`{name}` has shape {tuple(values.shape)}; its last dimension must hold {width} numbers.")


def check_same_shape(prediction: Tensor, target: Tensor) -> None:
    """Refuse two tensors of different shape."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"`prediction` has shape {tuple(prediction.shape)} and `target` {tuple(target.shape)}; they must be equal."
        )
