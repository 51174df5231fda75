"""A result term whose captions and short texts are scored by a model judge. Scores by rules alone are scoring.py's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from m1lite.metrics.functional import event_scores
from m1lite.records import Task
from m1lite.rewards.scoring import score_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.records import Answer, Episode, Sample, Trajectory
    from m1lite.rewards.model_judge import AnswerJudge, EventJudge


class JudgedResult:
    r"""R_res by a judge: what the agent's own answer is worth, ``wrong + m * (correct - wrong)``.

    A caption's m is the F1 of the judged events, and that of a grounded answer the grade of its text times the
    temporal IoU of its span. All else is scored by rules, see :func:`~m1lite.rewards.scoring.score_answers`. A missing
    answer has m = 0; where the judge failed the value is ``None``.

    Args:
        events: judges captions; None leaves them to the rules.
        answers: judges the texts of grounded answers; None leaves them to the rules.
        correct: paid for m = 1.
        wrong: paid for m = 0.
    """

    def __init__(
        self,
        *,
        events: EventJudge | None = None,
        answers: AnswerJudge | None = None,
        correct: float = 1.0,
        wrong: float = -1.0,
    ) -> None:
        self.events = events
        self.answers = answers
        self.correct = correct
        self.wrong = wrong

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> float | None:
        """Return the value of the answer, ``None`` where the judge failed."""
        score = self._score(sample, trajectory.answer)
        return None if score is None else self.wrong + score * (self.correct - self.wrong)

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Judge the answers of all agents of these episodes together."""
        given = [
            (episode.sample, trajectory.answer)
            for episode in episodes
            for trajectory in episode.trajectories.values()
            if trajectory.answer is not None
        ]
        if self.events is not None:
            captions = [(a.events, s.answer.events) for s, a in given if s.task is Task.CAPTION]
            self.events.prepare(captions)
        if self.answers is not None:
            self.answers.prepare([(s.question, a.text, s.answer.text or "") for s, a in given if _is_grounded(s)])

    def _score(self, sample: Sample, answer: Answer | None) -> float | None:
        if answer is None:
            return 0.0
        if self.events is not None and sample.task is Task.CAPTION:
            return self._caption_score(self.events, sample.answer.events, answer.events)
        if self.answers is not None and _is_grounded(sample):
            grade = self.answers(sample.question, answer.text, sample.answer.text or "")
            # With the true text the rules give the IoU of the span alone.
            return None if grade is None else grade * score_answer(sample, replace(answer, text=sample.answer.text))
        return score_answer(sample, answer)

    @staticmethod
    def _caption_score(judge: EventJudge, true: Sequence[str], told: Sequence[str]) -> float | None:
        if not told:
            return 0.0
        flags = judge(told, true)
        return None if flags is None else event_scores(torch.tensor(flags[0]), torch.tensor(flags[1])).f1.item()


def _is_grounded(sample: Sample) -> bool:
    return sample.task is Task.GROUNDED_QA
