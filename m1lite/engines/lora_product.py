"""LoRA products of a batch with several adapters: one pair of matrix products for each adapter, none for plain rows.

Pure tensor functions; ``_vllm_compat.py`` puts them in the place of vLLM's own on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = slice | Tensor
"""Rows of a batch that share an adapter: a slice where they are neighbours, else their numbers, long ``(N,)``."""


def rows_by_slot(slots: Tensor) -> list[tuple[int, Rows]]:
    """Group the rows of a batch by adapter slot.

    Args:
        slots: long ``(N,)``, -1 where the row is the plain base.

    Example:
        >>> rows_by_slot(torch.tensor([2, 2, -1, 0, 0]))
        [(0, slice(3, 5, None)), (2, slice(0, 2, None))]
        >>> rows_by_slot(torch.tensor([1, -1, 1]))
        [(1, tensor([0, 2]))]
    """
    groups: list[tuple[int, Rows]] = []
    for slot in torch.unique(slots).tolist():
        if slot < 0:
            continue
        rows = (slots == slot).nonzero()[:, 0]
        first, last = int(rows[0]), int(rows[-1])
        groups.append((slot, slice(first, last + 1) if last - first + 1 == len(rows) else rows))
    return groups


def add_products(
    y: Tensor,
    x: Tensor,
    a_stacks: Sequence[Tensor],
    b_stacks: Sequence[Tensor],
    *,
    groups: Sequence[tuple[int, Rows]],
    sizes: Sequence[int],
    scale: float,
) -> None:
    """Add ``scale * x A^T B^T`` of every row's adapter to ``y`` in place.

    Args:
        y: ``(N, sum(sizes))`` at least.
        x: ``(N, in)``.
        a_stacks: for each of the fused parts ``(slots, 1, rank, in)``.
        b_stacks: for each of the fused parts ``(slots, 1, size, rank)``.
        groups: as :func:`rows_by_slot` gives them.
        sizes: columns of each part.
        scale: usually 1, since vLLM has already multiplied it into B.
    """
    for slot, rows in groups:
        part = x[rows].to(y.dtype)
        start = 0
        for a_stack, b_stack, size in zip(a_stacks, b_stacks, sizes, strict=True):
            a, b = a_stack[slot].flatten(0, -2).to(y.dtype), b_stack[slot].flatten(0, -2).to(y.dtype)
            target, inner = y[:, start : start + size], part @ a.t()
            if scale != 1:
                inner *= scale
            if isinstance(rows, slice):
                target[rows].addmm_(inner, b[:size].t())
            else:
                target.index_add_(0, rows, inner @ b[:size].t())
            start += size
