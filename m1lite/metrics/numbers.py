"""Numbers as answers, as a metric: mean relative accuracy. Options stand in qa.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics._inputs import stack_answers
from m1lite.metrics.functional._inputs import as_float
from m1lite.metrics.functional.numbers import mean_relative_accuracy

if TYPE_CHECKING:
    from collections.abc import Sequence


class MeanRelativeAccuracy(VideoMetric):
    r"""Mean relative accuracy (MRA) of predicted numbers.

    No answer scores 0 and stays in the denominator. ``mra`` is the mean of the per-sample :meth:`score`, see
    :func:`~m1lite.metrics.functional.mean_relative_accuracy`.

    ``update`` takes ``prediction``, a tensor ``(N,)`` (NaN for no answer) or a sequence of N numbers in which ``None``
    is no answer, and ``target``, a tensor ``(N,)`` of true numbers in the same unit. ``compute`` gives a dictionary of
    fractions: ``mra``, and ``answered``, the share of samples with an answer; without any sample they are NaN, with a
    warning.

    Args:
        strict: count only errors *below* a tolerance, not equal to it.
        validate_args: refuse targets that are not finite; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: on update, if the shapes do not fit or a target is not finite.

    References:
        Yang et al. 2024, arXiv:2412.14171 (VSI-Bench). Its code takes a negative true number for always right and
        fails at 0; the one here goes by the size, and 0 asks for exactly 0. Its overall score is the mean over eight
        tasks: see the preset ``vsibench``.

    Example:
        >>> metric = MeanRelativeAccuracy()
        >>> metric.update([10.0, 8.7, None, 4.0], torch.tensor([10.0, 10.0, 3.0, 10.0]))
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'mra': 0.45, 'answered': 0.75}
    """

    score_sum: Tensor
    answered: Tensor
    count: Tensor

    def __init__(self, *, strict: bool = False, validate_args: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strict = strict
        self.validate_args = validate_args
        self.add_sums("score_sum", "answered", "count")

    def score(self, prediction: Tensor | Sequence[Any], target: Tensor) -> Tensor:
        """Return the relative accuracy of every sample ``(N,)``, 0 for no answer."""
        target = as_float(target)
        return mean_relative_accuracy(stack_answers(prediction, target), target, strict=self.strict)

    def update(self, prediction: Tensor | Sequence[Any], target: Tensor) -> None:
        """Add samples."""
        if self.validate_args:
            _check_numbers(target)
        prediction = stack_answers(prediction, as_float(target))
        scores = self.score(prediction, target)
        self.score_sum += scores.sum(dtype=torch.float64)
        self.answered += (~as_float(prediction).isnan()).sum()
        self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        """Return ``mra`` and ``answered``."""
        return {
            "mra": self.ratio(self.score_sum, self.count),
            "answered": self.ratio(self.answered, self.count),
        }


def _check_numbers(target: Tensor) -> None:
    """Refuse targets that are no finite numbers, one per sample."""
    if target.ndim != 1:
        raise ValueError(f"`target` has shape {tuple(target.shape)}; it must be (N,), one number per sample.")
    fine = as_float(target).isfinite()
    if not bool(fine.all()):
        row = int((~fine).nonzero()[0])
        raise ValueError(f"`target[{row}]` is {target[row].item()}; a true number is finite. Leave such samples out.")
