"""Multiple choice as a metric: the share of right options. Numbers are in numbers.py, texts in open_answer.py."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.functional.qa import choice_match

if TYPE_CHECKING:
    from collections.abc import Sequence


class MultipleChoiceAccuracy(VideoMetric):
    r"""Share of samples in which the right option was chosen.

    .. math:: \mathrm{accuracy} = \frac1N \sum_i \mathbb 1[\hat y_i = y_i]

    No answer is wrong and stays in the denominator. Most official scripts agree; those of Video-MME and VideoMMMU leave
    some unreadable answers out (``missing="skip"``, and the presets ``video_mme`` and ``video_mmmu``). ``accuracy`` is
    the mean of the per-sample :meth:`score`, with ``missing="skip"`` of those with an answer.

    ``update`` takes ``prediction``, an integer tensor ``(N,)`` (negative for no answer) or a sequence of N indices in
    which ``None`` is no answer, and ``target``, an integer tensor ``(N,)``. ``compute`` gives a dictionary of
    fractions: ``accuracy``, and ``answered``, the share of samples with an answer; without any sample they are NaN,
    with a warning. Accuracies per category and their mean: :class:`~m1lite.metrics.GroupedMetric`.

    Args:
        missing: what no answer does: ``"zero"`` counts it as wrong, ``"skip"`` leaves the sample out of ``accuracy``.
        validate_args: refuse negative targets; costs one read-back per update. Without it, such a target scores 0.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: for another ``missing``; on update if the lengths differ or a target is negative.
        TypeError: on update if an index is no integer.

    Example:
        >>> metric = MultipleChoiceAccuracy()
        >>> metric.update([2, 0, None, 1], torch.tensor([2, 1, 0, 1]))
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'accuracy': 0.5, 'answered': 0.75}
    """

    right: Tensor
    answered: Tensor
    count: Tensor

    def __init__(self, *, missing: Literal["zero", "skip"] = "zero", validate_args: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if missing not in ("zero", "skip"):
            raise ValueError(f"`missing` is {missing!r}; it must be 'zero' or 'skip'.")
        self.missing = missing
        self.validate_args = validate_args
        self.add_sums("right", "answered", "count")

    @staticmethod
    def score(prediction: Tensor | Sequence[int | None], target: Tensor) -> Tensor:
        """Return 1 or 0 for every sample ``(N,)``, 0 for no answer."""
        return choice_match(_as_indices(prediction, target), target)

    def update(self, prediction: Tensor | Sequence[int | None], target: Tensor) -> None:
        """Add samples."""
        if self.validate_args and bool((target < 0).any()):
            row = int((target < 0).nonzero()[0])
            raise ValueError(f"`target[{row}]` is {target[row].item()}; the right option is an index from 0.")
        prediction = _as_indices(prediction, target)
        self.right += choice_match(prediction, target).sum(dtype=torch.float64)
        self.answered += (prediction >= 0).sum()
        self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy`` and ``answered``."""
        return {
            "accuracy": self.ratio(self.right, self.count if self.missing == "zero" else self.answered),
            "answered": self.ratio(self.answered, self.count),
        }


def _as_indices(prediction: Tensor | Sequence[int | None], target: Tensor) -> Tensor:
    """Write chosen options as indices, -1 for no answer."""
    if isinstance(prediction, Tensor):
        return prediction
    indices = [-1 if option is None else _as_index(option, row) for row, option in enumerate(prediction)]
    return torch.tensor(indices, dtype=torch.long, device=target.device)


def _as_index(option: Any, row: int) -> int:
    try:
        return index(option)
    except TypeError:
        raise TypeError(
            f"`prediction[{row}]` is {option!r}; an option is an index from 0, or None for no answer. "
            "`parse_choice` reads one from a text."
        ) from None
