"""Hidden states of rows that show frames: features from the tower once, positions in time, height and width.

Rows without pictures of a base that sees come here too. ``packing.py`` does the same for bases that do not see;
the features and their bound are ``engines/features.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from m1lite.engines.sight import MediaMismatchError, sight_of
from m1lite.modules.packing import ATTENTION
from m1lite.modules.prefixes import share_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from m1lite.engines.features import Features, FreshFeatures, VisionFeatures
    from m1lite.engines.sight import Sight
    from m1lite.records import MediaRef, PlacedMedia


class ShownRows(Protocol):
    """B rows of T tokens that show something; a ``TokenBatch`` or an ``SftBatch``."""

    @property
    def input_ids(self) -> Tensor:
        """Ids, long ``(B, T)``."""

    @property
    def media(self) -> tuple[tuple[PlacedMedia, ...], ...]:
        """Per row, by place; empty where no row shows anything."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rows, for messages; may be empty."""

    @property
    def agent(self) -> str:
        """Whose rows they are, for messages."""


@dataclass(kw_only=True, slots=True)
class SeenRows:
    """What a forward pass needs of B rows of T tokens."""

    input_ids: Tensor
    """long ``(B, T)``; what no wanted token needs is 0."""
    position_ids: Tensor
    """long ``(3, B, T)``: time, height and width."""
    feature: Tensor
    """long ``(B, T)``: which feature stands in the place of each placeholder, in the order of ``media``; -1: none."""
    media: tuple[MediaRef, ...]
    """The distinct pictures of all rows."""


def lay_out(sight: Sight, batch: ShownRows, mask: Tensor) -> SeenRows:
    """Place pictures and positions, of what the prediction of the masked tokens needs.

    Args:
        sight: how the base sees.
        batch: B rows, T tokens.
        mask: bool ``(B, T)``, the tokens to predict.

    Raises:
        MediaMismatchError: if placeholders and pictures of a row do not belong together; names the row's sample.
    """
    if batch.media and len(batch.media) != len(mask):
        raise MediaMismatchError(
            f"The batch of {batch.agent!r} holds media of {len(batch.media)} rows, but has {len(mask)} rows."
        )
    places = torch.arange(mask.shape[1], device=mask.device)
    needed = (mask * places).amax(1)  # (B,): the last masked token is predicted, and never read
    ids = torch.where(places < needed[:, None], batch.input_ids, 0)
    positions = torch.zeros(3, *mask.shape, dtype=torch.long)
    feature = torch.full(mask.shape, -1, dtype=torch.long)
    starts: dict[MediaRef, int] = {}
    count = 0
    for row, length in enumerate(needed.tolist()):
        shown = [one for one in batch.media[row] if one.offset < length] if batch.media else []
        name = batch.names[row] if batch.names else f"row {row} of {batch.agent!r}"
        sight.check(ids[row, :length].tolist(), shown, name)
        positions[:, row, :length] = sight.positions(length, shown)
        for one in shown:
            size = sight.num_tokens(one.media.size)
            if one.media not in starts:
                starts[one.media], count = count, count + size
            start = starts[one.media]
            feature[row, one.offset : one.offset + size] = torch.arange(start, start + size)
    return SeenRows(
        input_ids=ids,
        position_ids=positions.to(mask.device),
        feature=feature.to(mask.device),
        media=tuple(starts),
    )


def seen_states(
    model: Any, batch: ShownRows, mask: Tensor, features: VisionFeatures | FreshFeatures | None, *, packed: bool
) -> Tensor:
    """Return the hidden states that predict the masked tokens of a base that sees.

    Args:
        model: a vision-language model of transformers, bare; for ``packed`` one that ``prepare_packing`` saw.
        batch: B rows, T tokens.
        mask: bool ``(B, T)``, false on every first token.
        features: of the model's tower; None where nothing is shown.
        packed: feed the rows end to end, common beginnings once; rows share one only where they show the same.

    Returns:
        Float ``(M, D)``, M being the number of masked tokens, in the order of ``input_ids[mask]``.

    Raises:
        MediaMismatchError: if placeholders and pictures of a row do not belong together.
        ValueError: if there are pictures but no features, or packing with another attention than ``sdpa``.
    """
    sight = sight_of(model.config)
    assert sight is not None, "only bases that see come here"
    rows = lay_out(sight, batch, mask)
    if rows.media and features is None:
        raise ValueError(
            f"The batch of {batch.agent!r} shows {len(rows.media)} pictures, but the team was built without `frames`; "
            "pass a `FrameCache`."
        )
    found = features(rows.media) if features is not None else []
    if not packed or not bool(mask.any()):
        shown = _pictures(rows.feature[:, :-1], found)
        # Padding is on the right and attention causal, as in ``packing.predicting_states``.
        states = model.base_model(
            input_ids=rows.input_ids[:, :-1], position_ids=rows.position_ids[:, :, :-1], use_cache=False, **shown
        ).last_hidden_state
        return states[mask[:, 1:]]
    if model.config.get_text_config()._attn_implementation != ATTENTION:
        raise ValueError("Rows that show pictures are packed with the attention `sdpa` alone; leave packing off.")
    # Every feature has a number of its own, so that rows look alike only where they show alike.
    shared = share_rows(torch.where(rows.feature >= 0, -1 - rows.feature, rows.input_ids), mask)
    at = (shared.rows, shared.position_ids[0])
    states = model.base_model(
        input_ids=rows.input_ids[at][None],
        position_ids=rows.position_ids[:, at[0], at[1]][:, None],
        # A mask of four dimensions is passed on as it is: this one only says that none is to be made.
        attention_mask=mask.new_zeros(1, 1, 1, 1),
        use_cache=False,
        branches=shared.branches,
        **_pictures(rows.feature[at][None], found),
    ).last_hidden_state
    return states[0].index_select(0, shared.wanted)


def never_sampled(model: Any) -> Tensor | None:
    """Return the tokens that no engine lets a policy sample, long ``(M,)``; None where the base does not see."""
    sight = sight_of(model.config)
    return None if sight is None else torch.tensor(sight.media_ids, device=model.device)


def _pictures(feature: Tensor, found: Sequence[Features]) -> dict[str, Any]:
    """Make the argument by which a transformers model takes features, in the order of their placeholders."""
    shown = feature[feature >= 0]
    if not len(shown):
        return {}
    tokens = torch.cat([one.tokens for one in found])
    levels = [torch.cat(parts) for parts in zip(*(one.deep for one in found), strict=True)]
    picture = SimpleNamespace(pooler_output=(tokens[shown],), deepstack_features=[(level[shown],) for level in levels])
    return {"mm_encoder_outputs": {"image": picture}}
