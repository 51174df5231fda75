"""Evidence as a metric: how well the spans or frames that were looked at match those that hold the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics._spans import check_spans, stack_sets
from m1lite.metrics.functional.spans import SpanScores, frame_precision_recall, span_precision_recall
from m1lite.metrics.grounding import check_missing

if TYPE_CHECKING:
    from collections.abc import Sequence


class EvidenceF1(VideoMetric):
    r"""Precision, recall and F1 of chosen spans, or frames, against spans of evidence.

    Spans are compared by the time they cover
    (:func:`~m1lite.metrics.functional.span_precision_recall`); frames by how many lie in evidence, and how many spans
    of evidence hold one (:func:`~m1lite.metrics.functional.frame_precision_recall`). ``f1`` is the mean of the
    per-sample :meth:`score`, not the F1 of the other two.

    No answer (``None``) scores 0; an empty list is an answer, right where there is no evidence either.

    ``update`` takes ``prediction``: per sample a tensor ``(P, 2)`` or list of spans, or a tensor ``(F,)`` or flat list
    of times of frames (all samples of an update alike), or ``None`` for no answer; or one tensor ``(N, P, 2)`` or
    ``(N, F)`` padded with NaN. And ``target``, per sample a tensor ``(T, 2)`` or list of spans ``[start, end)``, or one
    tensor ``(N, T, 2)``. ``compute`` gives a dictionary of fractions: ``precision``, ``recall`` and ``f1``; without any
    sample they are NaN, with a warning.

    Args:
        missing: what no answer does: ``"zero"`` scores 0, ``"skip"`` leaves the sample out of every mean.
        validate_args: refuse targets that are reversed or not finite; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: on update, if shapes do not fit or a target holds no span.

    Example:
        >>> metric = EvidenceF1()
        >>> metric.update([[[0.0, 4.0]], None], [[[2.0, 4.0], [6.0, 8.0]], [[0.0, 1.0]]])  # spans
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'precision': 0.25, 'recall': 0.25, 'f1': 0.25}
        >>> metric(torch.tensor([[1.0, 3.0, 7.0, 9.0]]), [[[2.0, 4.0], [6.0, 8.0]]])["recall"].item()  # frames
        1.0
    """

    sums: Tensor
    count: Tensor

    def __init__(self, *, missing: Literal["zero", "skip"] = "zero", validate_args: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.missing = check_missing(missing)
        self.validate_args = validate_args
        self.add_sums("sums", shape=(3,))
        self.add_sums("count")

    @staticmethod
    def score(prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> Tensor:
        """Return the F1 of every sample ``(N,)``, 0 for no answer."""
        return _scores(*_stack(prediction, target)).f1

    def update(self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> None:
        """Add samples."""
        chosen, true, answered = _stack(prediction, target)
        if self.validate_args:
            check_spans(true, padded=True)
        self.sums += torch.stack(_scores(chosen, true, answered)).sum(-1, dtype=torch.float64)
        self.count += (answered | (self.missing == "zero")).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return ``precision``, ``recall`` and ``f1``."""
        return dict(zip(SpanScores._fields, self.ratio(self.sums, self.count), strict=True))


def _stack(prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Write spans ``(N, P, 2)``, or times ``(N, F, 1)``, with targets and which samples were answered."""
    if not _are_times(prediction):
        return stack_sets(prediction, target)
    if isinstance(prediction, Tensor):
        return stack_sets(prediction[..., None], target, width=1)
    columns = [times[:, None] if isinstance(times, Tensor) else _column(times) for times in prediction]
    return stack_sets(columns, target, width=1)


def _column(times: Sequence[float] | None) -> list[list[float]] | None:
    """Write times as rows of one number."""
    return None if times is None else [[time] for time in times]


def _are_times(prediction: Tensor | Sequence[Any]) -> bool:
    """Say whether samples hold times of frames and not spans; empty lists could be either."""
    if isinstance(prediction, Tensor):
        return prediction.ndim == 2
    sizes = [torch.as_tensor(entry).shape for entry in prediction if entry is not None]
    filled = [size for size in sizes if size.numel()]
    return bool(filled) and all(len(size) == 1 for size in filled)


def _scores(chosen: Tensor, target: Tensor, answered: Tensor) -> SpanScores:
    """Precision, recall and F1 of every sample, 0 where it was not answered."""
    times = chosen.shape[-1] == 1
    found = frame_precision_recall(chosen[..., 0], target) if times else span_precision_recall(chosen, target)
    return SpanScores(*(torch.where(answered, share, 0.0) for share in found))
