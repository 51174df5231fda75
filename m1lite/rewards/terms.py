"""The three reward terms of VideoChat-M1: result, format, collaboration. Weights and gates are compose.py's.

No source gives the magnitudes of the paper's penalties; the defaults here are our reading, and each is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from m1lite.records import Status
from m1lite.rewards.judge import AsksAhead, count_calls
from m1lite.rewards.scoring import score_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.records import Episode, Sample, Trajectory
    from m1lite.rewards.judge import Judge

UNREADABLE = frozenset({Status.INVALID_PLAN, Status.INVALID_ANSWER, Status.TRUNCATED})
"""Statuses of a turn whose reply could not be used."""


class Result:
    r"""R_res: what the answer is worth, ``correct`` for m = 1 and ``wrong`` for m = 0. An unreadable answer has m = 0.

    Args:
        correct: paid for a right answer.
        wrong: paid for a wrong or missing one.
        scale: ``"graded"`` interpolates, ``wrong + m * (correct - wrong)``, with the defaults 2m - 1; ``"binary"`` pays
            ``correct`` where m reaches the threshold, else ``wrong``.
        threshold: of ``"binary"``, in (0, 1].
        scope: whose answer counts: the ``"agent"``'s own or the ``"team"``'s.

    Raises:
        ValueError: if an option is not one of its values.

    References:
        VideoChat-M1, arXiv:2511.19524: a positive result reward, or a negative penalty when wrong. The magnitudes, the
        grading and whose answer counts are our reading.
    """

    def __init__(
        self,
        *,
        correct: float = 1.0,
        wrong: float = -1.0,
        scale: Literal["binary", "graded"] = "graded",
        threshold: float = 0.5,
        scope: Literal["agent", "team"] = "agent",
    ) -> None:
        if scale not in ("binary", "graded"):
            raise ValueError(f"`scale` is {scale!r}; it must be 'binary' or 'graded'.")
        if scope not in ("agent", "team"):
            raise ValueError(f"`scope` is {scope!r}; it must be 'agent' or 'team'.")
        if not 0 < threshold <= 1:
            raise ValueError(f"`threshold` is {threshold}; it must be in (0, 1].")
        self.correct = correct
        self.wrong = wrong
        self.scale = scale
        self.threshold = threshold
        self.scope = scope

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return the value of the answer."""
        score = score_answer(sample, episode.answer if self.scope == "team" else trajectory.answer)
        if self.scale == "binary":
            score = float(score >= self.threshold)
        return self.wrong + score * (self.correct - self.wrong)


class Format:
    """R_format: every reply of the agent could be read, and every call could be run.

    A tool that misses its deadline, and a step that was dropped at the limit of calls, are no faults of the format.

    Args:
        valid: paid where all is well.
        invalid: paid otherwise.

    References:
        VideoChat-M1, arXiv:2511.19524: positive where the plan parses and its calls are executable, else a penalty. The
        magnitudes, and that decisions and the answer count too, are our reading.
    """

    def __init__(self, *, valid: float = 0.5, invalid: float = -0.5) -> None:
        self.valid = valid
        self.invalid = invalid

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
        """Return the value, ``None`` for an agent that never spoke."""
        if not trajectory.turns:
            return None
        readable = all(turn.status not in UNREADABLE for turn in trajectory.turns)
        executable = all(result.status is not Status.TOOL_ERROR for result in trajectory.results)
        return self.valid if readable and executable else self.invalid


class Collaboration:
    """R_col: a judge's verdict on how the agent planned, replaced by a penalty when it asked for too many calls.

    Args:
        judge: gives a verdict on a trajectory, or ``None`` where it failed.
        good: paid for a good verdict.
        bad: paid for a bad one.
        too_many_calls: paid instead of either above ``max_calls``; the judge is then not asked.
        max_calls: calls that an agent may ask for, those dropped at the loop's own limit included.

    References:
        VideoChat-M1, arXiv:2511.19524: 1 or 0 from a judge, and a strong penalty above five tool calls. The size of the
        penalty is our reading.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        good: float = 1.0,
        bad: float = 0.0,
        too_many_calls: float = -1.0,
        max_calls: int = 5,
    ) -> None:
        self.judge = judge
        self.good = good
        self.bad = bad
        self.too_many_calls = too_many_calls
        self.max_calls = max_calls

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
        """Return the value of the verdict, ``None`` where the judge failed."""
        if count_calls(episode, trajectory) > self.max_calls:
            return self.too_many_calls
        verdict = self.judge(sample, episode, trajectory)
        if verdict is None:
            return None
        return self.good if verdict.good else self.bad

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Let a judge that can ask ahead judge all agents of these episodes together."""
        if isinstance(self.judge, AsksAhead):
            pairs = [(episode, trajectory) for episode in episodes for trajectory in episode.trajectories.values()]
            self.judge.prepare([pair for pair in pairs if count_calls(*pair) <= self.max_calls])
