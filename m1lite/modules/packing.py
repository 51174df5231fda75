"""Rows of uneven length as one sequence without padding: the same hidden states, and no token computed in vain.

Each row keeps its own positions and reads nothing of its neighbours; where the attention is ours, what rows have in
common at their beginning is computed once (``prefixes.py``). ``rows.py`` is the padded way; which loss the states feed
is the caller's (``team.py``, ``sft.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from m1lite.modules.prefixes import share_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from m1lite.modules.prefixes import Branches

ATTENTION = "sdpa_by_row"
"""transformers' name of the attention that :func:`prepare_packing` puts in the place of ``sdpa``."""
_KINDS = {"full_attention", "sliding_attention"}


def plan_packs(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Put rows into as few sequences as a simple rule finds: longest first, each into the first that has room.

    Args:
        lengths: tokens per row; rows of length 0 are left out.
        max_tokens: budget of tokens per sequence; a longer row makes a sequence of its own.

    Returns:
        Row indices per sequence, longest first in each.

    Raises:
        ValueError: if the budget is not positive.

    References:
        First-fit decreasing; Johnson 1973, "Near-optimal bin packing algorithms": at most 11/9 of the fewest, plus 4.

    Example:
        >>> plan_packs([3, 10, 0, 4, 9], max_tokens=13)
        [[1, 0], [4, 3]]
    """
    if max_tokens < 1:
        raise ValueError(f"`max_tokens` is {max_tokens}; a sequence needs room for at least 1 token.")
    packs: list[list[int]] = []
    room: list[int] = []
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row]):
        place = next((number for number, left in enumerate(room) if left >= lengths[row]), len(packs))
        if place == len(packs):
            packs.append([])
            room.append(max_tokens)
        packs[place].append(row)
        room[place] -= lengths[row]
    return packs


@dataclass(kw_only=True, slots=True)
class PackedRows:
    """Rows laid end to end. N tokens of R rows."""

    input_ids: Tensor
    """long ``(1, N)``."""
    position_ids: Tensor
    """long ``(1, N)``, from 0 in every row."""
    lengths: tuple[int, ...]
    """Tokens of each of the R rows, each at least 1; their sum is N."""
    wanted: Tensor
    """bool ``(N,)``, true where the hidden state predicts a token that was asked for."""

    def __repr__(self) -> str:
        return f"PackedRows(rows={len(self.lengths)}, tokens={sum(self.lengths)}, wanted={int(self.wanted.sum())})"


def pack_rows(input_ids: Tensor, mask: Tensor) -> PackedRows:
    """Lay out what the prediction of the masked tokens needs: each row up to the token before its last masked one.

    Args:
        input_ids: long ``(B, T)``, padded on the right.
        mask: bool ``(B, T)``, the tokens to predict; false on every first token.

    Returns:
        The rows that have masked tokens, in order; ``wanted`` counts them in the order of ``input_ids[mask]``.

    Example:
        >>> ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
        >>> packed = pack_rows(ids, torch.tensor([[False, True, True], [False, True, False]]))
        >>> packed.input_ids, packed.position_ids, packed.lengths
        (tensor([[5, 6, 8]]), tensor([[0, 1, 0]]), (2, 1))
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    needed = (mask * places).amax(1)  # (B,): the last masked token is predicted, and never read
    read = places < needed[:, None]  # (B, T)
    return PackedRows(
        input_ids=input_ids[read][None],
        position_ids=places.expand_as(read)[read][None],
        lengths=tuple(length for length in needed.tolist() if length),
        wanted=mask[:, 1:][read[:, :-1]],
    )


def prepare_packing(model: Any) -> None:
    """Make a model ready for :func:`predicting_states` with ``packed=True``.

    ``sdpa`` is replaced by an attention that takes the rows of a sequence one by one, also rows that share their
    beginning, and is ``sdpa`` itself for any other input. Flash attention takes rows apart by itself. With any other
    kernel rows are kept apart by a block-diagonal mask over the whole sequence, which transformers makes of the
    positions.

    Args:
        model: a transformers causal language model, bare (not inside PEFT).

    Raises:
        ValueError: if a layer carries something over from token to token that positions do not reset.
    """
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if not kinds <= _KINDS or getattr(model, "_is_stateful", False):
        raise ValueError(
            f"{type(model).__name__} has layers of the kinds {sorted(kinds - _KINDS) or 'stateful'}, which would read "
            f"across rows; packing knows {sorted(_KINDS)}. Leave packing off."
        )
    if text._attn_implementation == "sdpa":
        AttentionInterface.register(ATTENTION, _attend_by_row)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        model.set_attn_implementation(ATTENTION)


def predicting_states(model: Any, input_ids: Tensor, mask: Tensor, *, packed: bool) -> Tensor:
    """Return the hidden states that predict the masked tokens.

    Args:
        model: a transformers causal language model, bare; for ``packed`` one that :func:`prepare_packing` saw.
        input_ids: long ``(B, T)``, padded on the right.
        mask: bool ``(B, T)``, false on every first token.
        packed: feed the rows end to end, without padding; otherwise as they are.

    Returns:
        Float ``(M, D)``, M being the number of masked tokens, in the order of ``input_ids[mask]``.
    """
    if not packed or not bool(mask.any()):
        # Padding is on the right and attention causal, so real tokens never see it: no attention mask, which keeps the
        # fast kernels. The last token predicts nothing and is left out.
        states = model.base_model(input_ids=input_ids[:, :-1], use_cache=False).last_hidden_state
        return states[mask[:, 1:]]
    if model.config._attn_implementation == ATTENTION:
        shared = share_rows(input_ids, mask)
        states = model.base_model(
            input_ids=shared.input_ids,
            position_ids=shared.position_ids,
            # A mask of four dimensions is passed on as it is: this one only says that none is to be made.
            attention_mask=input_ids.new_zeros(1, 1, 1, 1, dtype=torch.bool),
            use_cache=False,
            branches=shared.branches,
        ).last_hidden_state
        return states[0].index_select(0, shared.wanted)
    rows = pack_rows(input_ids, mask)
    states = model.base_model(
        input_ids=rows.input_ids, position_ids=rows.position_ids, use_cache=False
    ).last_hidden_state
    return states[0, rows.wanted]


def _attend_by_row(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    branches: Branches | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' ``sdpa``; where branches are given, ``(1, H, N, D)`` holds them end to end."""
    if branches is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if branches.places is not None:
        key, value = key.index_select(2, branches.places), value.index_select(2, branches.places)
    # Split and not sliced: the gradient of a slice is a tensor of the whole size, for every row.
    parts = query.split(branches.lengths, dim=2), key.split(branches.reads, dim=2), value.split(branches.reads, dim=2)
    found = []
    for index, (queries, keys, values) in enumerate(zip(*parts, strict=True)):
        mask = branches.mask(index, sliding_window, query.device)
        # (1, length, H, D)
        found.append(sdpa_attention_forward(module, queries, keys, values, mask, **kwargs)[0])
    return torch.cat(found, dim=1), None
