"""Rows that begin alike, laid out so that a common beginning is computed once: rollouts of a question share its prompt.

Pure layout of token ids; ``packing.py`` computes on it. A token's hidden state depends on the tokens before it and on
nothing else, so rows may share it with its gradient: what every row adds there is added up.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(kw_only=True, slots=True, frozen=True)
class Branch:
    """The tokens of one row that no row before it has: a stretch of the layout, and what it reads."""

    start: int
    """Where the stretch begins in the layout."""
    length: int
    """Its tokens, at least 1."""
    prefix: Tensor | None
    """long ``(P,)``: places in the layout of the tokens before it, in order; None where it begins its row."""


@dataclass(kw_only=True, slots=True)
class SharedRows:
    """Rows as branches, end to end. N distinct tokens, M tokens to predict."""

    input_ids: Tensor
    """long ``(1, N)``."""
    position_ids: Tensor
    """long ``(1, N)``, of each token in its row, from 0."""
    rows: Tensor
    """long ``(N,)``: a row that each token stands in."""
    branches: tuple[Branch, ...]
    """In the order of the layout; their lengths add up to N."""
    wanted: Tensor
    """long ``(M,)``: the place whose hidden state predicts each masked token, in the order of ``input_ids[mask]``."""

    def __repr__(self) -> str:
        tokens = self.input_ids.shape[1]
        return f"SharedRows(branches={len(self.branches)}, tokens={tokens}, wanted={len(self.wanted)})"


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
    branches: list[Branch] = []
    tokens, positions, before = 0, [], None
    for row in _alphabetical(rows):
        shared = 0 if before is None else common_length(rows[before], rows[row])
        new = needed[row] - shared
        fresh = torch.arange(tokens, tokens + new)
        prefix = paths[before][:shared] if before is not None and shared else None
        paths[row] = fresh if prefix is None else torch.cat([prefix, fresh])
        if new:
            places = None if prefix is None else prefix.to(device)
            branches.append(Branch(start=tokens, length=new, prefix=places))
            positions.append((row, shared, needed[row]))
        tokens, before = tokens + new, row
    read = [mask_row[1:].nonzero()[:, 0] for mask_row in mask.cpu()]  # the token before each masked one
    wanted = [paths[row][places] for row, places in enumerate(read) if len(places)]
    return SharedRows(
        input_ids=torch.cat([rows[row][first:end] for row, first, end in positions])[None].to(device),
        position_ids=torch.cat([torch.arange(first, end) for _, first, end in positions])[None].to(device),
        rows=torch.cat([torch.full((end - first,), row) for row, first, end in positions]).to(device),
        branches=tuple(branches),
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
