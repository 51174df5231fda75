"""Cuts a padded batch into micro-batches of similar length, so that little is computed for padding. Pure index work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.records import TokenBatch


def needed_lengths(batch: TokenBatch) -> list[int]:
    """Return per row how many leading tokens the loss needs: up to its last sampled token, 0 for a row without any."""
    width = batch.loss_mask.shape[1]
    positions = torch.arange(1, width + 1, device=batch.loss_mask.device)
    return (batch.loss_mask * positions).amax(dim=1).tolist() if width else [0] * len(batch.loss_mask)


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group rows, longest first, so that rows times width of a group stays within a budget.

    Args:
        lengths: tokens per row; rows of length 0 are left out.
        max_tokens: budget of padded tokens per group; a longer row makes a group of its own.

    Returns:
        Row indices per group.

    Raises:
        ValueError: if the budget is not positive.

    Example:
        >>> micro_batches([3, 10, 0, 4, 9], max_tokens=20)
        [[1, 4], [3, 0]]
    """
    if max_tokens < 1:
        raise ValueError(f"`max_tokens` is {max_tokens}; a micro-batch needs room for at least 1 token.")
    groups: list[list[int]] = []
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row]):
        if not groups or lengths[groups[-1][0]] * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(row)
    return groups


def take_rows(batch: TokenBatch, rows: Sequence[int], *, width: int) -> TokenBatch:
    """Return some rows of a batch, cut to a width.

    Args:
        batch: B rows, T tokens.
        rows: indices into B.
        width: tokens to keep, at most T.
    """
    index = torch.as_tensor(rows, dtype=torch.long, device=batch.input_ids.device)
    return replace(
        batch,
        input_ids=batch.input_ids[index, :width],
        attention_mask=batch.attention_mask[index, :width],
        loss_mask=batch.loss_mask[index, :width],
        sampled_logprobs=batch.sampled_logprobs[index, :width],
        advantages=batch.advantages[index, :width],
        # What begins behind the cut is not needed there; a block that the cut goes through is not needed either.
        media=tuple(tuple(one for one in batch.media[row] if one.offset < width) for row in rows)
        if batch.media
        else (),
        names=tuple(batch.names[row] for row in rows) if batch.names else (),
    )
