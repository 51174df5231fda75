"""Rows that begin alike, laid out so that a common beginning is computed once: rollouts of a question share its prompt.

Pure layout of token ids; ``packing.py`` computes on it. A token's hidden state depends on the tokens before it and on
nothing else, so rows may share it with its gradient: what every row adds there is added up.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(kw_only=True, slots=True)
class Branches:
    """Stretches of a layout that no row before them has, one for a row, and what each of them reads."""

    lengths: tuple[int, ...]
    """Tokens of each, at least 1, in the order of the layout."""
    reads: tuple[int, ...]
    """Tokens that each may read: those before it in its row, and its own."""
    places: Tensor | None
    """long ``(sum of reads,)``: where those stand in the layout, branch after branch; None where each reads its own."""
    masks: dict[tuple[int, int, int | None], Tensor] = field(default_factory=dict)
    """Made so far: once for all layers, and for all branches of one size."""

    def mask(self, index: int, window: int | None, device: torch.device) -> Tensor | None:
        """Say what the tokens of one branch read: all up to themselves.

        Args:
            index: of the branch.
            window: how far a token looks back, itself included; None is to the beginning.
            device: of the mask.

        Returns:
            bool ``(length, reads)``; None where the plain causal order says the same.
        """
        length, reads = self.lengths[index], self.reads[index]
        if length == reads and (window is None or reads <= window):
            return None
        key = length, reads, window
        if key not in self.masks:
            mask = torch.ones(length, reads, dtype=torch.bool, device=device).tril(reads - length)
            self.masks[key] = mask if window is None else mask.triu(reads - length + 1 - window)
        return self.masks[key]


@dataclass(kw_only=True, slots=True)
class SharedRows:
    """Rows as branches, end to end. N distinct tokens, M tokens to predict."""

    input_ids: Tensor
    """long ``(1, N)``."""
    position_ids: Tensor
    """long ``(1, N)``, of each token in its row, from 0."""
    rows: Tensor
    """long ``(N,)``: a row that each token stands in."""
    branches: Branches
    """Their lengths add up to N."""
    wanted: Tensor
    """long ``(M,)``: the place whose hidden state predicts each masked token, in the order of ``input_ids[mask]``."""

    def __repr__(self) -> str:
        tokens = self.input_ids.shape[1]
        return f"SharedRows(branches={len(self.branches.lengths)}, tokens={tokens}, wanted={len(self.wanted)})"


def common_length(first: Tensor, second: Tensor) -> int:
    """Count the tokens that two rows begin with alike, of long ``(T,)`` and ``(U,)``.

    Example:
        >>> common_length(torch.tensor([5, 6, 7]), torch.tensor([5, 6, 8, 9]))
        2
    """
    shorter = min(len(first), len(second))
    differs = (first[:shorter] != second[:shorter]).nonzero()
    return int(differs[0]) if len(differs) else shorter


def share_rows(input_ids: Tensor, mask: Tensor) -> SharedRows:
    """Lay out what the prediction of the masked tokens needs, each distinct beginning once.

    Args:
        input_ids: long ``(B, T)``, padded on the right.
        mask: bool ``(B, T)``, the tokens to predict; false on every first token. At least one is true.

    Example:
        >>> ids = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 0]])
        >>> rows = share_rows(ids, torch.tensor([[False, False, True, True], [False, False, True, False]]))
        >>> rows.input_ids, rows.position_ids, rows.wanted
        (tensor([[5, 6, 7]]), tensor([[0, 1, 2]]), tensor([1, 2, 1]))
    """
    device = mask.device
    needed = (mask * torch.arange(mask.shape[1], device=device)).amax(1).tolist()  # the last is predicted, never read
    rows = [row[:length] for row, length in zip(input_ids.cpu(), needed, strict=True)]
    paths: dict[int, Tensor] = {}  # of every row: the places of its tokens
    stretches: list[tuple[int, int, int]] = []
    tokens, before = 0, None
    for row in _alphabetical(rows):
        shared = 0 if before is None else common_length(rows[before], rows[row])
        fresh = torch.arange(tokens, tokens + needed[row] - shared)
        paths[row] = fresh if before is None else torch.cat([paths[before][:shared], fresh])
        if len(fresh):
            stretches.append((row, shared, needed[row]))
        tokens, before = tokens + len(fresh), row
    read = [mask_row[1:].nonzero()[:, 0] for mask_row in mask.cpu()]  # the token before each masked one
    wanted = [paths[row][places] for row, places in enumerate(read) if len(places)]
    is_shared = any(first for _, first, _ in stretches)
    return SharedRows(
        input_ids=torch.cat([rows[row][first:end] for row, first, end in stretches])[None].to(device),
        position_ids=torch.cat([torch.arange(first, end) for _, first, end in stretches])[None].to(device),
        rows=torch.cat([torch.full((end - first,), row) for row, first, end in stretches]).to(device),
        branches=Branches(
            lengths=tuple(end - first for _, first, end in stretches),
            reads=tuple(end for _, _, end in stretches),
            places=torch.cat([paths[row] for row, _, _ in stretches]).to(device) if is_shared else None,
        ),
        wanted=torch.cat(wanted).to(device),
    )


def plan_shared(input_ids: Tensor, lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Put rows into sequences so that rows which begin alike lie together; what they share counts once.

    Args:
        input_ids: long ``(B, T)``, padded on the right.
        lengths: tokens per row that are computed; rows of length 0 are left out.
        max_tokens: budget of distinct tokens per sequence; a longer row makes a sequence of its own.

    Returns:
        Row indices per sequence, longest first in each.

    Raises:
        ValueError: if the budget is not positive.

    References:
        First-fit decreasing, as ``packing.plan_packs``; what is placed are the families of rows that have more in
        common than all rows do.

    Example:
        >>> ids = torch.tensor([[5, 6, 7], [8, 6, 7], [5, 6, 9]])
        >>> plan_shared(ids, [3, 3, 3], max_tokens=4)
        [[0, 2], [1]]
    """
    if max_tokens < 1:
        raise ValueError(f"`max_tokens` is {max_tokens}; a sequence needs room for at least 1 token.")
    rows = [row[:length] for row, length in zip(input_ids.cpu(), lengths, strict=True)]
    families, common = _families(rows, max_tokens)
    packs: list[list[int]] = []
    room: list[int] = []
    for size, family in sorted(families, key=lambda entry: -entry[0]):
        place = next((number for number, left in enumerate(room) if left >= size - common), len(packs))
        if place == len(packs):
            packs.append([])
            room.append(max_tokens - common)
        packs[place] += family
        room[place] -= size - common
    return [sorted(pack, key=lambda row: -lengths[row]) for pack in packs]


def _families(rows: Sequence[Tensor], max_tokens: int) -> tuple[list[tuple[int, list[int]]], int]:
    """Return (distinct tokens, rows) of each family, none above the budget but single rows; and what all rows share."""
    order = _alphabetical(rows)
    links = [common_length(rows[one], rows[other]) for one, other in itertools.pairwise(order)]
    common = min(links, default=0)
    families: list[tuple[int, list[int]]] = []
    for row, link in zip(order, [-1, *links], strict=True):
        size, family = families[-1] if families else (0, [])
        if link <= common or size + len(rows[row]) - link > max_tokens:
            families.append((len(rows[row]), [row]))
        else:
            families[-1] = (size + len(rows[row]) - link, [*family, row])
    return families, common


def _alphabetical(rows: Sequence[Tensor]) -> list[int]:
    """Return the rows that are not empty, so that any two lie next to what they share most with."""
    keys = [row.tolist() for row in rows]
    return sorted((row for row, key in enumerate(keys) if key), key=keys.__getitem__)
