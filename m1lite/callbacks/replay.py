"""Questions are played once more under another condition, and what comes of it is paid to the episodes of the step.

Two conditions: frames in another order (Video-R1's T-GRPO), and nothing but the frames that the tools have shown
(TimeSearch-R's check of what was searched). The second episodes are not learnt from. When they are played is
rollout.py's matter, how frames are chosen first_look.py's.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from m1lite.agents.first_look import GivenTimes, Shuffled
from m1lite.rewards.compose import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from m1lite.callbacks.rollout import Play
    from m1lite.records import Episode
    from m1lite.rewards.compose import Breakdown, RewardTerm


class Replay(Protocol):
    """Plays again, and adds what it finds to the rewards."""

    def __call__(
        self,
        play: Play,
        agents: Sequence[Any],
        episodes: Sequence[Episode],
        breakdowns: Sequence[Mapping[str, Breakdown]],
        *,
        seed: int,
    ) -> list[dict[str, Breakdown]]:
        """Return the breakdowns of the same episodes with one more term.

        Args:
            play: runs a team on questions.
            agents: the team, of agents that see.
            episodes: of the step.
            breakdowns: one per episode.
            seed: of the second play.
        """


class Replayed:
    """Rewards of which a part needs a second play. Called, it gives the other part, as for validation questions.

    Args:
        reward: episodes to breakdowns.
        replay: what is played again, and what that pays.
    """

    def __init__(self, reward: Callable[[Sequence[Episode]], list[dict[str, Breakdown]]], replay: Replay) -> None:
        self.reward = reward
        self.replay = replay

    def __call__(self, episodes: Sequence[Episode]) -> list[dict[str, Breakdown]]:
        """Reward episodes by themselves."""
        return self.reward(episodes)


class FrameOrder:
    """T-GRPO: a bonus where frames in order help, the term ``temporal``.

    Every question is played with its frames in another order too. Where the mean accuracy of an agent's episodes is at
    least ``ratio`` times that of the disordered ones, each episode whose accuracy is above ``least`` is paid the bonus.
    Frames must be shown without their times (``no_stamp``), or the order can be read off them.

    Args:
        accuracy: what an answer is worth, in [0, 1].
        episodes: with frames in another order, of each question.
        ratio: 0.8 in the released code; the paper compares without it.
        bonus: paid.
        least: accuracy above which an episode counts as right enough.

    References:
        Video-R1, arXiv:2503.21776: 8 ordered and 4 shuffled episodes, bonus 0.3.
    """

    name = "temporal"

    def __init__(
        self,
        accuracy: RewardTerm,
        *,
        episodes: int = 4,
        ratio: float = 0.8,
        bonus: float = 0.3,
        least: float = 0.1,
    ) -> None:
        self.accuracy = accuracy
        self.episodes = episodes
        self.ratio = ratio
        self.bonus = bonus
        self.least = least

    def __call__(
        self,
        play: Play,
        agents: Sequence[Any],
        episodes: Sequence[Episode],
        breakdowns: Sequence[Mapping[str, Breakdown]],
        *,
        seed: int,
    ) -> list[dict[str, Breakdown]]:
        """Play every question with shuffled frames; see :class:`Replay`."""
        samples = list({episode.sample.id: episode.sample for episode in episodes}.values())
        disordered = [replace(agent, look=Shuffled(agent.look, seed=seed)) for agent in agents]
        others = play(samples, disordered, seed=seed, episodes=self.episodes)
        right = _accuracies(self.accuracy, [*episodes, *others])
        found = [dict(breakdown) for breakdown in breakdowns]
        for agent in agents:
            for sample in samples:
                mine = [row for row, episode in enumerate(episodes) if episode.sample.id == sample.id]
                theirs = [len(episodes) + row for row, other in enumerate(others) if other.sample.id == sample.id]
                helps = self._helps(right, mine, theirs, agent.name)
                for row in mine:
                    value = right[row][agent.name]
                    paid = None if value is None or helps is None else float(helps and value > self.least)
                    found[row][agent.name] = with_term(found[row][agent.name], self.name, paid, weight=self.bonus)
        return found

    def _helps(
        self,
        right: Sequence[Mapping[str, float | None]],
        mine: Sequence[int],
        theirs: Sequence[int],
        name: str,
    ) -> bool | None:
        ordered = [value for row in mine if (value := right[row][name]) is not None]
        shuffled = [value for row in theirs if (value := right[row][name]) is not None]
        return fmean(ordered) >= self.ratio * fmean(shuffled) if ordered and shuffled else None


class EvidenceCheck:
    """GRPO-CSV: whether the frames that the tools have shown suffice for the answer, the term ``completeness``.

    An agent whose answer is right is asked again, without tools, and shown those frames alone; the term is what that
    second answer is worth. It is 0 where the first answer is not right and where no frames were shown.

    Args:
        accuracy: what an answer is worth, in [0, 1].
        weight: of the term.
        threshold: accuracy above which the first answer is right.

    References:
        TimeSearch-R, arXiv:2511.05489: 1[Acc(A) > 0.5] Acc(A_c), as printed; the released code multiplies scores, so
        that those of half-right answers leak through.
    """

    name = "completeness"

    def __init__(self, accuracy: RewardTerm, *, weight: float = 0.5, threshold: float = 0.5) -> None:
        self.accuracy = accuracy
        self.weight = weight
        self.threshold = threshold

    def __call__(
        self,
        play: Play,
        agents: Sequence[Any],
        episodes: Sequence[Episode],
        breakdowns: Sequence[Mapping[str, Breakdown]],
        *,
        seed: int,
    ) -> list[dict[str, Breakdown]]:
        """Ask right agents again; see :class:`Replay`."""
        first = _accuracies(self.accuracy, episodes)
        found = [dict(breakdown) for breakdown in breakdowns]
        for agent in agents:
            values: list[float | None] = [None if right[agent.name] is None else 0.0 for right in first]
            shown = {row: self._shown(episode, agent) for row, episode in enumerate(episodes)}
            asked = [row for row in shown if (first[row][agent.name] or 0.0) > self.threshold and shown[row]]
            samples = [replace(episodes[row].sample, id=f"{episodes[row].sample.id}/{row}") for row in asked]
            if samples:
                times = {sample.id: shown[row] for sample, row in zip(samples, asked, strict=True)}
                again = replace(agent, look=GivenTimes(times), tools=())
                others = play(samples, [again], seed=seed, episodes=1)
                for row, right in zip(asked, _accuracies(self.accuracy, others), strict=True):
                    values[row] = right[agent.name]
            for row, value in enumerate(values):
                found[row][agent.name] = with_term(found[row][agent.name], self.name, value, weight=self.weight)
        return found

    @staticmethod
    def _shown(episode: Episode, agent: Any) -> tuple[float, ...]:
        """Return the seconds of the frames that its calls returned, as many as its first view holds."""
        results = episode.trajectories[agent.name].results
        seconds = sorted({second for result in results for media in result.media for second in media.timestamps})
        return tuple(seconds[: agent.view.most_frames])


def with_term(breakdown: Breakdown, name: str, value: float | None, *, weight: float) -> Breakdown:
    """Add a term to a reward.

    Args:
        breakdown: of one agent in one episode.
        name: of the term.
        value: before the weight; ``None`` where it cannot be told, which leaves the total as it is.
        weight: of the term in the total.

    Raises:
        ValueError: if there is a term of this name already.
    """
    if name in breakdown.terms:
        raise ValueError(f"There is a reward term {name!r} already; give it another name in the configuration.")
    share = None if value is None else weight * value
    total = breakdown.total if share is None else (breakdown.total or 0.0) + share
    return replace(
        breakdown,
        total=total,
        terms={**breakdown.terms, name: value},
        shares={**breakdown.shares, name: share},
    )


def _accuracies(term: RewardTerm, episodes: Sequence[Episode]) -> list[dict[str, float | None]]:
    """Value every agent's answer, all of them prepared together."""
    if isinstance(term, Prepared):
        term.prepare(episodes)
    return [
        {name: term(episode.sample, episode, trajectory) for name, trajectory in episode.trajectories.items()}
        for episode in episodes
    ]
