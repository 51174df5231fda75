"""Open answers as a metric: how well free texts agree with the true ones. Options are in qa.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.functional.open_answer import open_answer_match

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Judge = Callable[[str, str | None, str | Sequence[str]], float | None]


class OpenAnswerScore(VideoMetric):
    r"""Mean agreement of free texts with the true ones.

    No answer scores 0 and stays in the denominator. The value is the mean of the per-sample :meth:`score`, see
    :func:`~m1lite.metrics.functional.open_answer_match`. Official protocols for open answers mostly ask a language
    model, which a judge can be; those of VideoMMMU's questions are in the preset ``video_mmmu``.

    ``update`` takes ``prediction``, a sequence of N texts in which ``None`` is no answer, and ``target``, N texts or
    sequences of texts, of which the best counts; with a judge also ``question``, N texts. ``compute`` gives a
    dictionary of fractions: ``exact``, ``rouge`` or ``judge``, and ``answered``, the share of samples with an answer;
    with a judge also ``judged``: where it failed, the sample leaves the mean and lowers this share. Without any sample
    they are NaN, with a warning.

    Args:
        measure: ``"exact"``, equality after normalising; or ``"rouge"``, the mean F1 of ROUGE-1, -2 and -L, which needs
            the package of the extra ``text``. Not read with a judge.
        judge: ``judge(question, prediction, target)`` to a grade in [0, 1] for one sample, or None where it failed;
            for example :class:`~m1lite.rewards.model_judge.AnswerJudge`. No answer is not shown to it.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: for another measure; on update if the lengths differ, a sample has no true text, a grade is outside
            [0, 1], or ``question`` is missing with a judge.
        TypeError: on update if either is one text instead of a sequence of them.
        ImportError: on update, for ROUGE without its package.

    References:
        See :func:`~m1lite.metrics.functional.open_answer_match`.

    Example:
        >>> metric = OpenAnswerScore()
        >>> metric.update(["The red car.", "two dogs", None, "3"], ["red car", "a dog", "cat", ["3", "three"]])
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'exact': 0.5, 'answered': 0.75}
    """

    score_sum: Tensor
    answered: Tensor
    judged: Tensor
    count: Tensor

    def __init__(
        self, *, measure: Literal["exact", "rouge"] = "exact", judge: Judge | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if measure not in ("exact", "rouge"):
            raise ValueError(f"`measure` is {measure!r}; it must be 'exact' or 'rouge'.")
        self.measure = measure
        self.judge = judge
        self.add_sums("score_sum", "answered", "judged", "count")

    def score(
        self,
        prediction: Sequence[str | None],
        target: Sequence[str | Sequence[str]],
        question: Sequence[str] | None = None,
    ) -> Tensor:
        """Return the agreement of every sample, float64 ``(N,)``, 0 for no answer; NaN where the judge failed."""
        if self.judge is None:
            return open_answer_match(prediction, target, measure=self.measure)
        if question is None or not len(question) == len(prediction) == len(target):
            raise ValueError(
                f"A judge needs one question and one target for each answer; there are {len(prediction)} answers, "
                f"{len(target)} targets and {'no' if question is None else len(question)} questions."
            )
        grades = [self._grade(*sample) for sample in zip(question, prediction, target, strict=True)]
        return torch.tensor(grades, dtype=torch.float64)

    def _grade(self, question: str, prediction: str | None, target: str | Sequence[str]) -> float:
        assert self.judge is not None
        grade = 0.0 if prediction is None else self.judge(question, prediction, target)
        if grade is not None and not 0 <= grade <= 1:
            raise ValueError(f"The judge graded {prediction!r} with {grade}; a grade is in [0, 1], or None.")
        return float("nan") if grade is None else grade

    def update(
        self,
        prediction: Sequence[str | None],
        target: Sequence[str | Sequence[str]],
        question: Sequence[str] | None = None,
    ) -> None:
        """Add samples."""
        scores = self.score(prediction, target, question).to(self.score_sum.device)
        self.score_sum += scores.nansum()
        self.judged += (~scores.isnan()).sum()
        self.answered += sum(answer is not None for answer in prediction)
        self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean agreement, under the measure's name or as ``judge``, and ``answered``."""
        answered = {"answered": self.ratio(self.answered, self.count)}
        if self.judge is None:
            return {self.measure: self.ratio(self.score_sum, self.count), **answered}
        return {
            "judge": self.ratio(self.score_sum, self.judged),
            **answered,
            "judged": self.ratio(self.judged, self.count),
        }
