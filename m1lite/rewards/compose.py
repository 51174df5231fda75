"""Rewards from named terms: weights, gates, and the unweighted breakdown per agent. The terms are in terms.py.

A term that cannot be told (a judge that failed) is ``None``: it stays out of the sum and out of every mean, and is
counted. Nothing here is normalised, see m1lite/rl/advantages.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from m1lite.rewards.scoring import score_answer, score_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m1lite.records import Episode, Sample, Trajectory


class RewardTerm(Protocol):
    """One aspect of what an agent did, as a number."""

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
        """Return the term's value for one agent, or ``None`` where it cannot be told."""


@runtime_checkable
class Prepared(Protocol):
    """A term that can be told all episodes before it is asked about each: a model judge asks about them together."""

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Get ready for the agents of these episodes."""


class Gate(Protocol):
    """How much of a term is paid."""

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return a factor."""


def always(sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
    """Pay the whole term."""
    return 1.0


def if_correct(sample: Sample, episode: Episode, trajectory: Trajectory, *, threshold: float = 0.5) -> float:
    """Pay the whole term where the agent's own answer scores ``threshold`` or more, else nothing."""
    return float(score_answer(sample, trajectory.answer) >= threshold)


def scale_by_score(sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
    """Pay the share m in [0, 1] that the agent's own answer scores."""
    return score_answer(sample, trajectory.answer)


class WeightedTerm:
    """A term, how much it counts, and when.

    A plain class: configuration libraries take a dataclass inside a mapping for a schema and rebuild it.

    Args:
        term: what is rewarded.
        weight: factor of the term in the sum.
        gate: how much of it is paid in one episode.
    """

    def __init__(self, *, term: RewardTerm, weight: float = 1.0, gate: Gate = always) -> None:
        self.term = term
        self.weight = weight
        self.gate = gate

    def __repr__(self) -> str:
        return f"WeightedTerm({self.weight} * {self.term})"


@dataclass(kw_only=True, slots=True, frozen=True)
class Breakdown:
    """The reward of one agent in one episode."""

    total: float | None
    """Sum of weight times gate times value over the known terms; ``None`` where no term is known."""
    terms: dict[str, float | None] = field(default_factory=dict)
    """Term name to its value before weight and gate."""
    shares: dict[str, float | None] = field(default_factory=dict, compare=False)
    """Term name to what it adds to the total; follows from the terms, so that it is left out of comparisons."""
    turns: tuple[float | None, ...] = ()
    """The reward of each turn of the agent, where rewards per turn are composed."""


class TurnRewards(Protocol):
    """Rewards an agent turn by turn; turns.py has them."""

    def __call__(
        self, sample: Sample, episode: Episode, trajectory: Trajectory, answer_reward: float | None
    ) -> tuple[float | None, ...]:
        """Return one value per turn, given the agent's total."""


def compose(
    episodes: Sequence[Episode], *, terms: Mapping[str, WeightedTerm], turns: TurnRewards | None = None
) -> list[dict[str, Breakdown]]:
    r"""Reward every agent of every episode.

    .. math:: R = \sum_j w_j \, g_j \, r_j \quad \text{over the terms } j \text{ that are known}

    Args:
        episodes: finished episodes.
        terms: name to weighted term; those that can prepare do so once, for all episodes.
        turns: rewards the turns of an agent, given the sum of its terms; None rewards trajectories only.

    Returns:
        For each episode, agent name to breakdown.

    Raises:
        ValueError: if there are no terms, or a term gives a value that is not finite.

    References:
        VideoChat-M1, arXiv:2511.19524: a plain sum of the result, format and collaboration terms.
    """
    if not terms:
        raise ValueError("`terms` is empty; a reward needs at least one named term.")
    terms = dict(terms.items())
    pairs = [(episode.sample, trajectory) for episode in episodes for trajectory in episode.trajectories.values()]
    # Scored together here, so that the terms find the scores of single answers remembered.
    score_answers([sample for sample, _ in pairs], [trajectory.answer for _, trajectory in pairs])
    for weighted in terms.values():
        if isinstance(weighted.term, Prepared):
            weighted.term.prepare(episodes)
    return [
        {name: _break_down(episode, trajectory, terms, turns) for name, trajectory in episode.trajectories.items()}
        for episode in episodes
    ]


def term_stats(breakdowns: Sequence[Mapping[str, Breakdown]]) -> dict[str, float]:
    """Summarise the terms of every agent for the log.

    Args:
        breakdowns: what :func:`compose` returned.

    Returns:
        For every agent and term ``<agent>/rewards/<term>/mean``, ``.../std`` (unbiased, 0 for one value) and
        ``.../failed``, the number of values that could not be told; mean and std are left out where none could.
    """
    values: dict[str, list[float | None]] = {}
    for episode in breakdowns:
        for agent, breakdown in episode.items():
            for term, value in breakdown.terms.items():
                values.setdefault(f"{agent}/rewards/{term}", []).append(value)
    stats: dict[str, float] = {}
    for name, column in values.items():
        known = [value for value in column if value is not None]
        if known:
            stats[f"{name}/mean"] = fmean(known)
            stats[f"{name}/std"] = stdev(known) if len(known) > 1 else 0.0
        stats[f"{name}/failed"] = float(len(column) - len(known))
    return stats


def _break_down(
    episode: Episode, trajectory: Trajectory, terms: Mapping[str, WeightedTerm], turns: TurnRewards | None
) -> Breakdown:
    values: dict[str, float | None] = {}
    shares: dict[str, float | None] = {}
    total: float | None = None
    for name, weighted in terms.items():
        value = weighted.term(episode.sample, episode, trajectory)
        values[name], shares[name] = value, None
        if value is None:
            continue
        share = weighted.weight * weighted.gate(episode.sample, episode, trajectory) * value
        if not math.isfinite(share):
            raise ValueError(
                f"Reward term {name!r} gave {value} (weighted {share}) for agent {trajectory.agent!r} on sample "
                f"{episode.sample.id!r}; a term must be finite, or None where it cannot be told."
            )
        total = share if total is None else total + share
        shares[name] = share
    per_turn = () if turns is None else turns(episode.sample, episode, trajectory, total)
    return Breakdown(total=total, terms=values, shares=shares, turns=per_turn)
