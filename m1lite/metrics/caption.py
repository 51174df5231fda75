"""Captions as a metric: precision, recall and F1 of their events, as a judge that is passed in sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.functional.caption import EventScores, event_scores, harmonic_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Flags = Tensor | Sequence[bool | float]
    Judge = Callable[[Any, Any], tuple[Flags, Flags] | None]


class CaptionEvents(VideoMetric):
    r"""Precision, recall and F1 of the events that captions tell.

    A judge (a language model, an entailment model, a rule) says which predicted events follow from the truth, and which
    true events follow from the prediction. ``precision`` and ``recall`` are the means of the per-sample :meth:`score`
    over the samples that were judged; ``f1`` is :math:`2PR / (P + R)` of these two means, 0 where both are 0, and not
    the mean of the samples' F1. ``recall`` alone is the event recall that VideoChat-R1 rewards.

    A caption without events has precision 1 (nothing wrong was said) and a truth without events recall 1. No answer is
    not an empty caption: it scores 0 in both. Where the judge failed, the sample leaves the means and lowers
    ``judged``.

    ``update`` takes ``prediction`` and ``target``, N of each. Without a judge these are the flags of the events, bool
    or a probability in [0, 1]: ``prediction[i]`` one for each predicted event, ``target[i]`` one for each true event,
    None where judging failed. With a judge they are what the judge reads, handed over pair by pair. ``prediction[i]``
    is None for no answer. ``compute`` gives a dictionary of fractions: ``precision``, ``recall``, ``f1``, and
    ``judged``, the share of samples that were judged; without any sample they are NaN, with a warning.

    Args:
        judge: ``judge(prediction, target)`` to the flags of both for one sample, or None where it failed. None: the
            samples hold the flags.
        validate_args: refuse flags outside [0, 1]; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: on update, if the lengths differ or a flag is outside [0, 1].

    References:
        Wang et al. 2024, arXiv:2407.00634 (DREAM-1K), AutoDQ, whose own script gives NaN where both are 0 and has no
        answer that is missing. Li et al. 2025, arXiv:2504.06958 (VideoChat-R1), section 3.2, event recall.

    Example:
        >>> def judge(told, true):
        ...     return [event in true for event in told], [event in told for event in true]
        >>> metric = CaptionEvents(judge)
        >>> metric.update([["cut", "fry"], None], [["cut", "fry", "eat", "wash"], ["cut"]])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'precision': 0.5, 'recall': 0.25, 'f1': 0.333, 'judged': 1.0}
    """

    precision_sum: Tensor
    recall_sum: Tensor
    judged: Tensor
    count: Tensor

    def __init__(self, judge: Judge | None = None, *, validate_args: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.judge = judge
        self.validate_args = validate_args
        self.add_sums("precision_sum", "recall_sum", "judged", "count")

    def score(self, prediction: Sequence[Any], target: Sequence[Any]) -> EventScores:
        """Return precision, recall and F1 of every sample, float64 ``(N,)``; NaN where judging failed."""
        if len(prediction) != len(target):
            raise ValueError(
                f"`prediction` holds {len(prediction)} captions for {len(target)} targets; give one, or None, for each."
            )
        if not len(target):
            return EventScores(*torch.zeros(3, 0, dtype=torch.float64, device=self.device))
        told, true = zip(*map(self._flags, prediction, target), strict=True)
        (told_flags, told_mask), (true_flags, true_mask) = self._padded(told), self._padded(true)
        if self.validate_args:
            _check_flags(told_flags, true_flags)
        scores = event_scores(told_flags, true_flags, predicted_mask=told_mask, target_mask=true_mask)
        failed = torch.tensor([flags is None for flags in true], device=self.device)
        return EventScores(*(torch.where(failed, float("nan"), score) for score in scores))

    def update(self, prediction: Sequence[Any], target: Sequence[Any]) -> None:
        """Add samples."""
        scores = self.score(prediction, target)
        self.precision_sum += scores.precision.nansum()
        self.recall_sum += scores.recall.nansum()
        self.judged += (~scores.recall.isnan()).sum()
        self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        """Return ``precision``, ``recall``, ``f1`` and ``judged``."""
        means = self.ratio(torch.stack([self.precision_sum, self.recall_sum]), self.judged)
        return {
            "precision": means[0],
            "recall": means[1],
            "f1": harmonic_mean(means[0], means[1]),
            "judged": self.judged / self.count,
        }

    def _flags(self, prediction: Any, target: Any) -> tuple[Flags, Flags | None]:
        """Flags of one sample's predicted and true events; None for the latter where judging failed."""
        if prediction is None:
            return [0.0], [0.0]
        flags = (prediction, target) if self.judge is None else self.judge(prediction, target)
        return ([], None) if flags is None or flags[1] is None else flags

    def _padded(self, rows: Sequence[Flags | None]) -> tuple[Tensor, Tensor]:
        """Write ragged flags as float64 ``(N, E)``, with a mask that is false on the padding."""
        tensors = [torch.as_tensor([] if row is None else row, dtype=torch.float64, device=self.device) for row in rows]
        flags = pad_sequence(tensors, batch_first=True)
        lengths = torch.tensor([len(row) for row in tensors], device=self.device)
        return flags, torch.arange(flags.shape[1], device=self.device) < lengths[:, None]


def _check_flags(predicted: Tensor, target: Tensor) -> None:
    """Refuse flags that are no truth value and no probability."""
    flags = torch.cat([predicted, target], 1)
    fine = (flags >= 0) & (flags <= 1)
    if not bool(fine.all()):
        row, event = (~fine).nonzero()[0].tolist()
        side, place = ("predicted", event) if event < predicted.shape[1] else ("true", event - predicted.shape[1])
        raise ValueError(
            f"Sample {row} flags its {side} event {place} with {flags[row, event].item():g}; a flag is a truth value "
            "or a probability in [0, 1]."
        )
