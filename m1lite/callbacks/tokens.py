"""Counts the tokens of a training for its costs: what policies read and sampled, and what weights were trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from typing_extensions import override

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from m1lite.records import Episode


class TrainedTokens(pl.Callback):
    """Adds every step's tokens to the count ``trained``: those of its rows, context included, once for each pass.

    Args:
        counts: of this rank; the module's ``trained_tokens(batch)`` says what a batch adds.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.counts["trained"] += pl_module.trained_tokens(batch)


def counted(play: Callable[..., list[Episode]], counts: Counter[str]) -> Callable[..., list[Episode]]:
    """Make a function that plays as ``play`` does, and counts the tokens that were ``read`` and ``sampled``.

    Args:
        play: gives episodes.
        counts: of this rank; a prompt's tokens count once, however many turns see them.
    """

    def play_and_count(*args: Any, **kwargs: Any) -> list[Episode]:
        episodes = play(*args, **kwargs)
        for episode in episodes:
            for trajectory in episode.trajectories.values():
                for turn in trajectory.turns:
                    counts["read"] += len(turn.prompt_ids)
                    counts["sampled"] += len(turn.reply_ids)
        return episodes

    return play_and_count
