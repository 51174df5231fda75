"""Which frames of its video an agent is shown with the question. How large they are is video/budget.py's.

Another look is another function; ``NativeAgent`` takes it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol

from m1lite.video.sampling import clue_times, joined_windows, rate_times, shot_times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m1lite.records import Sample
    from m1lite.video.budget import FrameBudget
    from m1lite.video.sampling import Window

Clues = dict[str, "list[Window]"]
"""Sample id to windows in seconds, in any order."""


class FirstLook(Protocol):
    """Chooses the frames that stand before a question."""

    def __call__(self, sample: Sample, budget: FrameBudget, duration: float) -> list[float]:
        """Return seconds in ``[0, duration)`` in the order in which they are shown, at least one.

        Args:
            sample: the question.
            budget: of the agent.
            duration: seconds of the video that can be shown.
        """


def whole_video(sample: Sample, budget: FrameBudget, duration: float) -> list[float]:
    """Spread frames over the whole video, as the budget says."""
    return budget.times(0.0, duration)


def asked_times(sample: Sample, budget: FrameBudget, duration: float) -> list[float]:
    """Show the frames that the question asks about (tracking), one for each; for other questions the whole video."""
    asked = [second for second in sample.times if second < duration]
    return asked or whole_video(sample, budget, duration)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Shows what another look chooses in an order by chance, the same for all episodes of a question."""

    look: FirstLook
    seed: int

    def __call__(self, sample: Sample, budget: FrameBudget, duration: float) -> list[float]:
        """Return the other look's seconds in the question's order."""
        seconds = list(self.look(sample, budget, duration))
        Random(f"{self.seed} {sample.id}").shuffle(seconds)
        return seconds


@dataclass(frozen=True, slots=True)
class GivenTimes:
    """Shows the frames that are given for a question."""

    times: Mapping[str, Sequence[float]]
    """Sample id to seconds."""

    def __call__(self, sample: Sample, budget: FrameBudget, duration: float) -> list[float]:
        """Return the question's seconds.

        Raises:
            KeyError: if none are given for it.
        """
        return list(self.times[sample.id])


@dataclass(frozen=True, slots=True)
class DenserClues:
    """Shows as many frames of the whole video as the budget would, more densely inside the question's clues."""

    clues: Clues
    density: float = 1.5
    """Frames a second inside the clues over frames a second outside."""

    def __call__(self, sample: Sample, budget: FrameBudget, duration: float) -> list[float]:
        """Return the seconds; without a clue those of the whole video."""
        uniform = budget.times(0.0, duration)
        clues = joined_windows(0.0, duration, self.clues.get(sample.id, []))
        return clue_times(0.0, duration, clues, len(uniform), density=self.density) if clues else uniform


@dataclass(frozen=True, slots=True)
class ClueSegments:
    """Shows the question's clues alone, as many frames a second as the budget has room for."""

    clues: Clues

    def __call__(self, sample: Sample, budget: FrameBudget, duration: float) -> list[float]:
        """Return the seconds; without a clue those of the whole video."""
        clues = joined_windows(0.0, duration, self.clues.get(sample.id, []))
        if not clues:
            return budget.times(0.0, duration)
        wanted = [second for start, end in clues for second in rate_times(start, end, budget.fps)]
        return wanted if len(wanted) <= budget.most_frames else shot_times(clues, budget.most_frames)
