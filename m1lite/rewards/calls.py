"""Reward terms and gates about what an agent called: where it looked, whether it may have a bonus, whether it was lazy.

How whole replies must look is tags.py's, what the answer is worth aspects.py's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from m1lite.metrics.presets.r1 import blocks
from m1lite.records import Span, Status
from m1lite.rewards.aspects import span_overlap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from m1lite.records import Episode, Sample, Trajectory
    from m1lite.rewards.compose import Gate, RewardTerm

_INTEGER = re.compile(r"\d{1,12}")


class CallOverlap:
    """R_time of LongVT: IoU of the window that the last call asked for with the true span.

    0 where nothing was shown. The recall of the window in place of its IoU would be gained by ever longer windows.

    Args:
        tool: whose calls count.
        start: name of the argument with the second at which the window begins.
        end: name of the argument with the second at which it ends.

    References:
        LongVT, arXiv:2511.20785. Its code takes the last call, whether it succeeded or not, where any one did; here it
        is the last that did.
    """

    def __init__(self, *, tool: str = "crop_video", start: str = "start_time", end: str = "end_time") -> None:
        self.tool = tool
        self.start = start
        self.end = end

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
        """Return the value, ``None`` for questions without a true span."""
        if not sample.answer.spans:
            return None
        windows = [
            (call.args[self.start], call.args[self.end])
            for call, result in zip(trajectory.calls, trajectory.results, strict=True)
            if call.tool == self.tool and result.status is Status.OK
        ]
        if not windows or not 0 <= windows[-1][0] <= windows[-1][1]:
            return 0.0
        start, end = windows[-1]
        return max(span_overlap(Span(start=start, end=end), true) for true in sample.answer.spans)


class ExplorationBonus:
    """Pays a call that gave something as long as few episodes have one; gate it by what is right where that is meant.

    Args:
        target: the bonus is paid while no larger share of the rollout's episodes has a call that gave something.

    References:
        Video-MTR, arXiv:2508.20478: a small bonus for retrieving while the batch's rate is under a threshold.
        VideoZoomer, arXiv:2512.22315: paid with a right answer only, while the rate is at most a target. Neither prints
        the numbers.
    """

    def __init__(self, *, target: float = 0.5) -> None:
        if not 0 <= target <= 1:
            raise ValueError(f"`target` is {target}; it is a share of episodes, from 0 to 1.")
        self.target = target
        self._paid: dict[str, bool] = {}

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Count, agent by agent, how many of these episodes have a call that gave something."""
        used: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for episode in episodes:
            for name, trajectory in episode.trajectories.items():
                total[name] += 1
                used[name] += _gave(trajectory)
        self._paid = {name: used[name] <= self.target * total[name] for name in total}

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return 1 or 0."""
        return float(self._paid.get(trajectory.agent, True) and _gave(trajectory))


class LengthBonus:
    """Pays a right answer of a middling length, where the question has more than one of them.

    Args:
        accuracy: what an answer is worth, in [0, 1].
        low: tokens that the agent wrote, at least.
        high: at most.
        least: accuracy above which an answer is right enough.

    References:
        Video-R1, arXiv:2503.21776: 0.2 from 320 to 512 tokens. That more than one must qualify is the released code's.
    """

    def __init__(self, accuracy: RewardTerm, *, low: int = 320, high: int = 512, least: float = 0.1) -> None:
        self.accuracy = accuracy
        self.low = low
        self.high = high
        self.least = least
        self._qualified: Counter[tuple[str, str]] = Counter()

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Count who qualifies, for every question and agent."""
        self._qualified = Counter(
            (episode.sample.id, name)
            for episode in episodes
            for name, trajectory in episode.trajectories.items()
            if self._qualifies(episode.sample, episode, trajectory)
        )

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return 1 or 0."""
        enough = self._qualified[sample.id, trajectory.agent] > 1
        return float(enough and self._qualifies(sample, episode, trajectory))

    def _qualifies(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> bool:
        length = sum(len(turn.reply_ids) for turn in trajectory.turns)
        return self.low <= length <= self.high and (self.accuracy(sample, episode, trajectory) or 0.0) > self.least


class Called:
    """1 where the agent has a call of a tool that gave something, else 0.

    Args:
        tool: its name.

    References:
        FrameThinker: bonuses for an action, paid with a right answer only.
    """

    def __init__(self, tool: str) -> None:
        self.tool = tool

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return 1 or 0."""
        calls = zip(trajectory.calls, trajectory.results, strict=True)
        return float(any(call.tool == self.tool and result.status is Status.OK for call, result in calls))


class ShortAnswer:
    """Gate: pays nothing for an answer that is too long, by which judges are talked over.

    Args:
        max_characters: an answer must have fewer.

    References:
        LongVT, arXiv:2511.20785: from 1000 characters on neither accuracy nor format is paid.
    """

    def __init__(self, *, max_characters: int = 1000) -> None:
        self.max_characters = max_characters

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return 1 or 0."""
        text = None if trajectory.answer is None else trajectory.answer.text
        return float(text is None or len(text) < self.max_characters)


class Both:
    """Gate: the product of two gates.

    Args:
        first: any gate.
        second: any gate.
    """

    def __init__(self, first: Gate, second: Gate) -> None:
        self.first = first
        self.second = second

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return the product."""
        return self.first(sample, episode, trajectory) * self.second(sample, episode, trajectory)


class CoherentCalls:
    """Gate: FrameThinker's check that actions follow from thoughts, 1 or 0.

    0 for an agent that chooses the same frames twice, chooses from a span of fewer than ``min_span`` frames, chooses
    others than the last two numbers of its thought, asks for a frame's number and then does not look there, or ends
    without an answer.

    Args:
        choose: the tool that shows frames from ``start_frame`` to ``end_frame``.
        locate: the tool that tells the number of a frame.
        min_span: frames from first to last.

    References:
        FrameThinker, its cognitive consistency verification. That the number counts as ignored unless a later choice
        holds it is our reading.
    """

    def __init__(self, *, choose: str = "choose_frames", locate: str = "get_frame_number", min_span: int = 8) -> None:
        self.choose = choose
        self.locate = locate
        self.min_span = min_span

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float:
        """Return 1 or 0."""
        chosen = [window(call.args) for call in trajectory.calls if call.tool == self.choose]
        wide = all(last - first + 1 >= self.min_span for first, last in chosen)
        once = len(set(chosen)) == len(chosen)
        answered = trajectory.answer is not None
        return float(wide and once and answered and self._thought(trajectory) and self._followed(trajectory))

    def _thought(self, trajectory: Trajectory) -> bool:
        """Say whether every choice is of the last two numbers of its turn's thought."""
        for turn in trajectory.turns:
            numbers = [int(word) for thought in blocks(turn.text, "think") for word in _INTEGER.findall(thought)]
            if any(list(chosen) != numbers[-2:] for chosen in self._choices(turn.text)):
                return False
        return True

    def _choices(self, text: str) -> list[tuple[int, int]]:
        """Read the choices that a reply writes, those that cannot be read left out."""
        found = []
        for body in blocks(text, "tool_call"):
            try:
                call = json.loads(body)
            except (ValueError, RecursionError):
                continue
            if isinstance(call, dict) and call.get("name") == self.choose and isinstance(call.get("arguments"), dict):
                found.append(window(call["arguments"]))
        return found

    def _followed(self, trajectory: Trajectory) -> bool:
        """Say whether every frame whose number was told is within a later choice."""
        pending: list[int] = []
        for call, result in zip(trajectory.calls, trajectory.results, strict=True):
            if call.tool == self.locate and result.status is Status.OK:
                pending += [int(word) for word in _INTEGER.findall(result.text)][-1:]
            elif call.tool == self.choose:
                first, last = window(call.args)
                pending = [number for number in pending if not first <= number <= last]
        return not pending


def window(args: Mapping[str, Any]) -> tuple[int, int]:
    """Take the first and the last frame of a choice's arguments; -1 for what is no number."""
    first, last = (args.get(name) for name in ("start_frame", "end_frame"))
    return (int(first) if isinstance(first, int | float) else -1, int(last) if isinstance(last, int | float) else -1)


def _gave(trajectory: Trajectory) -> bool:
    return any(result.status is Status.OK for result in trajectory.results)
