"""Open answers as a metric: how well free texts agree with the true ones. Options are in qa.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.functional.open_answer import open_answer_match

if TYPE_CHECKING:
    from collections.abc import Sequence


class OpenAnswerScore(VideoMetric):
    r"""Mean agreement of free texts with the true ones.

    No answer scores 0 and stays in the denominator. The value is the mean of the per-sample :meth:`score`, see
    :func:`~m1lite.metrics.functional.open_answer_match`. Official protocols for open answers mostly ask a language
    model; those of VideoMMMU's questions are in the preset ``video_mmmu``.

    ``update`` takes ``prediction``, a sequence of N texts in which ``None`` is no answer, and ``target``, N texts or
    sequences of texts, of which the best counts. ``compute`` gives a dictionary of fractions: ``exact`` or ``rouge``,
    and ``answered``, the share of samples with an answer; without any sample they are NaN, with a warning.

    Args:
        measure: ``"exact"``, equality after normalising; or ``"rouge"``, the mean F1 of ROUGE-1, -2 and -L, which needs
            the package of the extra ``text``.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: for another measure; on update if the lengths differ or a sample has no true text.
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
    count: Tensor

    def __init__(self, *, measure: Literal["exact", "rouge"] = "exact", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if measure not in ("exact", "rouge"):
            raise ValueError(f"`measure` is {measure!r}; it must be 'exact' or 'rouge'.")
        self.measure = measure
        self.add_sums("score_sum", "answered", "count")

    def score(self, prediction: Sequence[str | None], target: Sequence[str | Sequence[str]]) -> Tensor:
        """Return the agreement of every sample, float64 ``(N,)``, 0 for no answer."""
        return open_answer_match(prediction, target, measure=self.measure)

    def update(self, prediction: Sequence[str | None], target: Sequence[str | Sequence[str]]) -> None:
        """Add samples."""
        self.score_sum += self.score(prediction, target).sum().to(self.score_sum.device)
        self.answered += sum(answer is not None for answer in prediction)
        self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean agreement, under the measure's name, and ``answered``."""
        return {
            self.measure: self.ratio(self.score_sum, self.count),
            "answered": self.ratio(self.answered, self.count),
        }
