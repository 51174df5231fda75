"""Reward terms of agents that think, call and answer in tags: the strict form, a tool that worked, stretched accuracy.

Where the sources give no numbers the defaults are our reading, and each is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from m1lite.metrics.presets.r1 import stretched_format
from m1lite.records import Status, Task
from m1lite.rewards.scoring import score_answer
from m1lite.rl.difficulty import scaled_accuracy

if TYPE_CHECKING:
    from m1lite.records import Episode, Sample, Trajectory


class TagFormat:
    """R_format: 1 where every reply is blocks of its tags and nothing else, else 0.

    A reply is an answer (for grounded QA with its glue block behind it) where it ends the agent's part, else one or
    several calls; with ``think`` a block of thoughts comes first. The replies of tracking and grounded QA must also be
    readable: a box for each time, a list of spans.

    Args:
        think: whether thoughts are demanded.
        glue: whether grounded answers name their spans; without, they are an answer like any other.

    References:
        VideoChat-R1, arXiv:2504.06958, and VITAL, arXiv:2508.04416; blocks are matched as VideoChat-R1's code does.
    """

    def __init__(self, *, think: bool = True, glue: bool = True) -> None:
        self.before = ("think",) if think else ()
        self.glue = glue

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
        """Return 1 or 0, ``None`` for an agent that never spoke."""
        turns = [turn for turn in trajectory.turns if turn.reply_ids]
        if not turns:
            return None
        *calls, last = turns
        grounded = sample.task is Task.GROUNDED_QA and self.glue
        closing = ("answer", "glue") if grounded else ("answer",)
        formed = stretched_format(last.text, (*self.before, *closing))
        formed &= all(stretched_format(turn.text, (*self.before, "tool_call")) for turn in calls)
        if sample.task is Task.TRACKING or grounded:
            formed &= last.status is Status.OK
        return float(formed)


def tool_succeeded(sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
    """R_tool of VITAL: 1 where at least one call of the agent gave a result, else 0."""
    return float(any(result.status is Status.OK for result in trajectory.results))


class StretchedAccuracy:
    r"""VITAL's Scale(R_acc): the IoU of grounding stretched to [0, 1], any other task's score as it is.

    .. math:: \mathrm{clamp}\Big(\frac{\mathrm{IoU} - \alpha}{\beta - \alpha}, 0, 1\Big)

    Args:
        low: alpha. No source gives it or ``high``; the defaults are our reading.
        high: beta.

    Raises:
        ValueError: unless ``low`` is below ``high``.

    References:
        VITAL, arXiv:2508.04416, algorithm 1.
    """

    def __init__(self, *, low: float = 0.0, high: float = 0.7) -> None:
        if not low < high:
            raise ValueError(f"`low` is {low} and `high` {high}; they must be low < high.")
        self.low, self.high = low, high

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return the value of the agent's own answer."""
        score = score_answer(sample, trajectory.answer)
        if sample.task is not Task.GROUNDING:
            return score
        return float(scaled_accuracy(torch.tensor(score, dtype=torch.float64), low=self.low, high=self.high))
