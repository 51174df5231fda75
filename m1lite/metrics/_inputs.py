"""How the metric classes read answers that may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def stack_answers(answers: Tensor | Sequence[Tensor | Sequence[float] | None], like: Tensor) -> Tensor:
    """Write answers as one tensor, with a row of NaN for no answer.

    Args:
        answers: a tensor ``(N, ...)``, or one entry per sample, ``None`` for no answer.
        like: ``(N, ...)``, the true values; gives shape, device, and the dtype of a list of plain numbers.

    Raises:
        ValueError: if an entry does not have the shape of a row of ``like``, or the lengths differ.
    """
    if isinstance(answers, Tensor):
        return answers
    if len(answers) != len(like):
        raise ValueError(
            f"`prediction` holds {len(answers)} answers for {len(like)} targets; give one, or None, for each."
        )
    dtype = like.dtype if like.is_floating_point() else torch.float32
    rows = torch.full(like.shape, float("nan"), dtype=dtype, device=like.device)
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        row = torch.as_tensor(answer, dtype=dtype, device=like.device)
        if row.shape != like.shape[1:]:
            raise ValueError(f"`prediction[{index}]` has shape {tuple(row.shape)}; it must be {tuple(like.shape[1:])}.")
        rows[index] = row
    return rows
