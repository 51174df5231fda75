"""Reward terms about one aspect of the agent's own answer: where it is, what it says, which events it tells.

Each is left out (``None``) for a question that does not ask for it, so that one list of terms serves questions of
several tasks. The form of replies is tags.py's, one number for a whole answer is scoring.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from m1lite.metrics.functional import (
    box_iou_sequence,
    event_scores,
    temporal_iou,
    temporal_set_iou,
    timestamp_aware_iou,
)
from m1lite.records import Task
from m1lite.rewards.scoring import score_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from m1lite.records import Box, Episode, Sample, Span, Trajectory
    from m1lite.rewards.model_judge import AnswerJudge, EventJudge

_SPOKEN = frozenset({Task.CHOICE, Task.COUNTING, Task.GROUNDED_QA})


def overlap(sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
    """Pay R_IoU: how far the answer's span, spans or boxes cover the true ones.

    Grounding: IoU over the hull of the two spans. Grounded QA: IoU of the time that both sets of spans cover, whatever
    the text says. Tracking: mean IoU of the boxes, the first of which the question gives. 0 for what cannot be read.

    References:
        VideoChat-R1, arXiv:2504.06958. Where its code keeps the IoU of the sample before, for a hull without length and
        for spans that cannot be read, this is 0.
    """
    answer = trajectory.answer
    match sample.task:
        case Task.GROUNDING:
            return 0.0 if answer is None or not answer.spans else span_overlap(answer.spans[0], sample.answer.spans[0])
        case Task.GROUNDED_QA:
            return 0.0 if answer is None or not answer.spans else _set_iou(answer.spans, sample.answer.spans)
        case Task.TRACKING:
            return 0.0 if answer is None else _box_iou(answer.boxes, sample.answer.boxes)
    return None


def timed_overlap(sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
    r"""Pay Time-R1's tIoU: the IoU of grounding, less for bounds that are far from the true ones.

    .. math:: \mathrm{IoU} \cdot (1 - |s - \hat s| / T) (1 - |e - \hat e| / T)

    References:
        Time-R1, arXiv:2503.13377. Never below 0 here, which a bound far behind the video's end would make it.
    """
    if sample.task is not Task.GROUNDING:
        return None
    answer = trajectory.answer
    if answer is None or not answer.spans:
        return 0.0
    given, true = _bounds(answer.spans), _bounds(sample.answer.spans)
    return max(0.0, timestamp_aware_iou(given[0], true[0], sample.duration).item())


class Accuracy:
    """R_acc: what the words of the answer are worth: an option, a number, a short text; spans do not count.

    Args:
        judge: grades short texts with 0, 0.5 or 1; None compares words, without case and surplus blanks.

    References:
        VideoChat-R1, arXiv:2504.06958. Its parser takes the first capital from A to G, so that "A man" is A; here an
        article chooses nothing.
    """

    def __init__(self, *, judge: AnswerJudge | None = None) -> None:
        self.judge = judge

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
        """Return the value, ``None`` for other tasks and where the judge failed."""
        if sample.task not in _SPOKEN:
            return None
        answer = trajectory.answer
        if sample.task is not Task.GROUNDED_QA:
            return score_answer(sample, answer)
        said, true = (None if answer is None else answer.text), sample.answer.text or ""
        if self._judged(sample):
            assert self.judge is not None
            return self.judge(sample.question, said, true)
        return float(said is not None and _plain(said) == _plain(true))

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Let the judge grade all texts of these episodes together."""
        asked = [
            (episode.sample.question, trajectory.answer.text, episode.sample.answer.text or "")
            for episode in episodes
            if self._judged(episode.sample)
            for trajectory in episode.trajectories.values()
            if trajectory.answer is not None
        ]
        if self.judge is not None:
            self.judge.prepare(asked)

    def _judged(self, sample: Sample) -> bool:
        return self.judge is not None and sample.task is Task.GROUNDED_QA and not sample.options


class EventRecall:
    """R_recall: the share of the true caption's events that the answer tells.

    Args:
        judge: says which events follow from the answer; None compares events word for word.

    References:
        VideoChat-R1, arXiv:2504.06958. There the judge splits the true caption too; here it is given as events.
    """

    def __init__(self, *, judge: EventJudge | None = None) -> None:
        self.judge = judge

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
        """Return the value, ``None`` for other tasks and where the judge failed."""
        if sample.task is not Task.CAPTION:
            return None
        answer, true = trajectory.answer, sample.answer.events
        if answer is None or not answer.events:
            return 0.0
        if self.judge is None:
            told = {_plain(event) for event in answer.events}
            flags = [_plain(event) in told for event in true]
        else:
            judged = self.judge(answer.events, true)
            if judged is None:
                return None
            flags = judged[1]
        return event_scores(torch.ones(1, dtype=torch.bool), torch.tensor(flags)).recall.item()

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Let the judge read all captions of these episodes together."""
        if self.judge is None:
            return
        self.judge.prepare(
            [
                (trajectory.answer.events, episode.sample.answer.events)
                for episode in episodes
                if episode.sample.task is Task.CAPTION
                for trajectory in episode.trajectories.values()
                if trajectory.answer is not None and trajectory.answer.events
            ]
        )


def span_overlap(given: Span, true: Span) -> float:
    """Return the IoU of two spans, over their hull."""
    return temporal_iou(_bounds([given])[0], _bounds([true])[0]).item()


def _set_iou(given: Sequence[Span], true: Sequence[Span]) -> float:
    return temporal_set_iou(_bounds(given), _bounds(true)).item()


def _box_iou(given: Sequence[Box], true: Sequence[Box]) -> float:
    if len(given) != len(true) or not true:
        return 0.0
    rows = [[(box.left, box.top, box.right, box.bottom) for box in boxes] for boxes in (given, true)]
    return box_iou_sequence(*torch.tensor(rows, dtype=torch.float64)).mean().item()


def _bounds(spans: Sequence[Span]) -> Tensor:
    return torch.tensor([(span.start, span.end) for span in spans], dtype=torch.float64)  # (S, 2)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
