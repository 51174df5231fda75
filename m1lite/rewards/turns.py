"""Rewards per turn: terms that look at one turn of an agent, and their gate by the answer (Video-MTR's preset).

The arithmetic over turns is ``m1lite.rl.turns``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from m1lite.records import MessageKind, TurnKind
from m1lite.rewards.terms import UNREADABLE
from m1lite.rl.advantages import reward_tensor
from m1lite.rl.turns import discounted_returns, gated_bilevel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m1lite.records import Episode, Sample, Span, Trajectory
    from m1lite.rewards.compose import RewardTerm


class TurnTerm(Protocol):
    """One aspect of every turn of an agent."""

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> list[float | None]:
        """Return one value per turn, ``None`` where it cannot be told."""


class TurnFormat:
    """Whether the turn's reply could be read.

    Args:
        valid: paid where it could.
        invalid: paid otherwise.

    References:
        Video-MTR, arXiv:2508.20478: 0.1 for a turn of the right format.
    """

    def __init__(self, *, valid: float = 0.1, invalid: float = 0.0) -> None:
        self.valid = valid
        self.invalid = invalid

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> list[float | None]:
        """Return the value of each turn."""
        return [self.invalid if turn.status in UNREADABLE else self.valid for turn in trajectory.turns]


class EvidenceGain:
    """How much better the window that a turn asked for fits the true span than the one before it.

    The turn is the one that wrote the step, the window the step's ``start`` and ``end``; a step without them, and a
    turn without a step, gain nothing. Questions without a true span have no such reward.

    Args:
        most: paid for one turn at most.

    References:
        Video-MTR, arXiv:2508.20478: paid for the gain of the frames' IoU with the annotated segment over the turn
        before, at most 0.5. That a loss costs nothing, and windows in place of frames, are our reading.
    """

    def __init__(self, *, most: float = 0.5) -> None:
        self.most = most

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> list[float | None]:
        """Return the value of each turn."""
        if not sample.answer.spans:
            return [None] * len(trajectory.turns)
        values: list[float | None] = []
        before = 0.0
        for place, turn in enumerate(trajectory.turns):
            last = turn.kind is TurnKind.ANSWER or place + 1 == len(trajectory.turns)
            until = turn.round if last else trajectory.turns[place + 1].round
            fits = [
                _fit(message.call.args, sample.answer.spans)
                for message in episode.messages
                if message.author == trajectory.agent
                and message.kind is MessageKind.RESULT
                and message.call is not None
                and turn.round < message.round <= until
            ]
            best = max(fits, default=0.0)
            values.append(min(self.most, max(0.0, best - before)))
            before = max(before, best)
        return values


def _fit(args: Mapping[str, Any], spans: Sequence[Span]) -> float:
    """IoU of a step's window with the nearest true span, 0 for a step without a window."""
    start, end = args.get("start"), args.get("end")
    if not (isinstance(start, int | float) and isinstance(end, int | float) and start < end):
        return 0.0
    best = 0.0
    for span in spans:
        shared = max(0.0, min(end, span.end) - max(start, span.start))
        best = max(best, shared / (end - start + span.end - span.start - shared))
    return best


class BilevelTurns:
    """Sum the terms of each turn, gate what came before the answer by the answer's reward, and look ahead.

    Args:
        terms: name to turn term, summed.
        discount: over turns, in [0, 1].
        right: is above 0 for a right answer; None goes by the agent's total, which then must be above 0 for no other.

    References:
        Video-MTR, arXiv:2508.20478: terms format and evidence gain, discount 0.95 over turns.
    """

    def __init__(
        self, *, terms: Mapping[str, TurnTerm], discount: float = 0.95, right: RewardTerm | None = None
    ) -> None:
        self.terms = dict(terms.items())
        self.discount = discount
        self.right = right

    def __call__(
        self, sample: Sample, episode: Episode, trajectory: Trajectory, answer_reward: float | None
    ) -> tuple[float | None, ...]:
        """Return the return of every turn, ``None`` where the answer has no reward.

        Args:
            sample: the question.
            episode: of the team.
            trajectory: of the agent.
            answer_reward: the agent's reward for the whole trajectory.
        """
        if not trajectory.turns:
            return ()
        rows = [reward_tensor(term(sample, episode, trajectory)) for term in self.terms.values()]
        summed = torch.stack(rows).nansum(0) if rows else torch.zeros(len(trajectory.turns))
        if self.right is not None and not (self.right(sample, episode, trajectory) or 0.0) > 0:
            summed[:-1] = 0.0  # a bonus in the total opens no gate
        paid = gated_bilevel(summed, reward_tensor([answer_reward])[0])
        returns = discounted_returns(paid, discount=self.discount)
        return tuple(None if value != value else value for value in returns.tolist())
