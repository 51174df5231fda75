"""Whether trainer and engine agree on every turn that was sampled: a disagreement names its sample and turn.

Only for tokens of the trainer's current weights. How often it is looked at is ``callbacks/turn_check.py``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.records import TokenBatch


class TurnMismatchError(RuntimeError):
    """A turn whose log-probs differ between engine and trainer; names the sample, the turn and both sides."""


@dataclass(kw_only=True, slots=True, frozen=True)
class TurnGap:
    """How far engine and trainer are apart on one turn."""

    row: int
    turn: int
    """Number of the turn in its row, from 0."""
    start: int
    """Place of its first sampled token in the row."""
    length: int
    """Sampled tokens."""
    gap: float
    """Mean absolute difference of their log-probs, nats; infinite where one is no number."""


def turn_gaps(batch: TokenBatch, logprobs: Tensor) -> list[TurnGap]:
    """Compare turn by turn.

    Args:
        batch: B rows, T tokens, with the engine's log-probs; a turn is a stretch of sampled tokens.
        logprobs: float ``(B, T)``, the trainer's.
    """
    gaps: list[TurnGap] = []
    differences = (logprobs - batch.sampled_logprobs).abs().nan_to_num(nan=float("inf")).tolist()
    for row, sampled in enumerate(batch.loss_mask.tolist()):
        turn, start = 0, None
        for place, wrote in enumerate([*sampled, False]):
            if wrote and start is None:
                start = place
            elif not wrote and start is not None:
                values = differences[row][start:place]
                gap = sum(values) / len(values)
                gaps.append(TurnGap(row=row, turn=turn, start=start, length=place - start, gap=gap))
                turn, start = turn + 1, None
    return gaps


def check_turns(batch: TokenBatch, logprobs: Tensor, *, tolerance: float) -> float:
    """Refuse a batch with a turn on which engine and trainer disagree.

    Args:
        batch: as in :func:`turn_gaps`.
        logprobs: as in :func:`turn_gaps`.
        tolerance: largest mean difference of a turn, nats.

    Returns:
        The largest; 0 where nothing was sampled.

    Raises:
        TurnMismatchError: naming the worst turn.
    """
    worst = max(turn_gaps(batch, logprobs), key=lambda turn: turn.gap, default=None)
    if worst is None:
        return 0.0
    if not worst.gap <= tolerance:
        name = batch.names[worst.row] if batch.names else f"row {worst.row}"
        shown = [one for one in batch.media[worst.row] if one.offset < worst.start] if batch.media else []
        seen = f", after {len(shown)} pictures" if shown else ""
        raise TurnMismatchError(
            f"Turn {worst.turn} of {name} of agent {batch.agent!r} ({worst.length} tokens from place "
            f"{worst.start}{seen}): engine and trainer differ by {worst.gap:.3g} nats a token, more than `tolerance` "
            f"{tolerance:g}. They saw other pixels, other weights, or stale features; nothing was trained on it."
        )
    return worst.gap
