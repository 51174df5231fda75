"""Several moments per sample as metrics: IoU of sets, area under curves over thresholds, mean average precision.

One moment per sample is in grounding.py; what was looked at, against evidence, in evidence.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics._spans import check_spans, stack_sets
from m1lite.metrics.functional.grounding import temporal_iou
from m1lite.metrics.functional.moments import cross_iou, moment_average_precision
from m1lite.metrics.functional.spans import span_precision_recall, temporal_set_iou
from m1lite.metrics.grounding import check_missing, check_thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def overlap_scores(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give IoU, precision and recall ``(N,)`` of sets of spans ``(N, P, 2)`` and ``(N, T, 2)``, each merged first."""
    precision, recall, _ = span_precision_recall(prediction, target)
    return temporal_set_iou(prediction, target), precision, recall


class TemporalSetIoU(VideoMetric):
    r"""Mean IoU, and the share of samples above IoU thresholds, of sets of spans.

    .. math:: \mathrm{IoU} = |\cup \hat S \cap \cup S| \,/\, |\cup \hat S \cup \cup S|

    Spans of one set are merged before they are compared. An empty set is an answer ("nothing happens"), right where the
    target is empty too; no answer (``None``) scores 0. ``miou`` is the mean of the per-sample :meth:`score`. Official
    scripts differ where both sets are empty: VideoChat-R1 and VUE-TR give 1, CG-Bench 0 (``empty=0.0``).

    ``update`` takes ``prediction``, a tensor ``(N, P, 2)`` of starts and ends padded with rows of NaN, or a sequence
    with, per sample, a tensor ``(P, 2)``, a list of pairs or ``None`` for no answer; and ``target``, the same without
    ``None``. ``compute`` gives a dictionary of fractions: ``miou`` and ``recall@<threshold>``; without any sample they
    are NaN, with a warning.

    Args:
        thresholds: IoU thresholds in (0, 1].
        strict: count IoU above the threshold instead of at or above it.
        empty: score where both sets are empty.
        missing: what no answer does: ``"zero"`` scores 0, ``"skip"`` leaves the sample out of every mean.
        validate_args: refuse targets that are reversed or not finite; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if a threshold is outside (0, 1]; on update if shapes do not fit or a target holds no span.

    References:
        As :func:`m1lite.metrics.functional.temporal_set_iou`.

    Example:
        >>> metric = TemporalSetIoU(thresholds=[0.5])
        >>> metric.update([[[0.0, 4.0], [6.0, 8.0]], [], None], [[[0.0, 8.0]], [], [[1.0, 2.0]]])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'miou': 0.583, 'recall@0.5': 0.667}
    """

    iou_sum: Tensor
    hits: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = (0.3, 0.5, 0.7),
        strict: bool = False,
        empty: float = 1.0,
        missing: Literal["zero", "skip"] = "zero",
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.thresholds = check_thresholds(thresholds)
        self.strict = strict
        self.empty = empty
        self.missing = check_missing(missing)
        self.validate_args = validate_args
        self.add_sums("iou_sum", "count")
        self.add_sums("hits", shape=(len(self.thresholds),))

    def score(self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> Tensor:
        """Return the IoU of every sample ``(N,)``, 0 for no answer."""
        return self._score(*stack_sets(prediction, target))

    def update(self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> None:
        """Add samples."""
        prediction, target, answered = stack_sets(prediction, target)
        if self.validate_args:
            check_spans(target, padded=True)
        iou = self._score(prediction, target, answered)
        counted = answered | (self.missing == "zero")
        # Compared in the dtype of the scores: 0.7 in float32 lies below 0.7 in float64.
        thresholds = iou.new_tensor(self.thresholds)
        above = iou[:, None] > thresholds if self.strict else iou[:, None] >= thresholds
        self.iou_sum += iou.sum(dtype=torch.float64)
        self.hits += above.sum(0)
        self.count += counted.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return ``miou`` and ``recall@<threshold>``."""
        recalls = self.ratio(self.hits, self.count)
        names = (f"recall@{threshold:g}" for threshold in self.thresholds)
        return {"miou": self.iou_sum / self.count, **dict(zip(names, recalls, strict=True))}

    def _score(self, prediction: Tensor, target: Tensor, answered: Tensor) -> Tensor:
        return torch.where(answered, temporal_set_iou(prediction, target, empty=self.empty), 0.0)


class MomentMeanAveragePrecision(VideoMetric):
    r"""Mean average precision of ranked moments, and R@1, over IoU thresholds.

    Average precision is per query, over all its true moments
    (:func:`~m1lite.metrics.functional.moment_average_precision`); ``map@<threshold>`` is its mean over queries and
    ``map`` the mean over thresholds, which is the mean of the per-sample :meth:`score`. ``recall@<threshold>`` is the
    share of queries whose first *listed* moment reaches the threshold with any true one, so list moments best first.

    No answer, and an empty list, score 0. The script of QVHighlights leaves queries with an empty list out of its mAP
    (``missing="skip"``) and fails on them for R@1. Queries without any true moment are left out of everything.

    ``update`` takes ``prediction``, per query a tensor ``(P, 3)`` or list of start, end and confidence, or ``None`` for
    no answer (or one tensor ``(N, P, 3)`` padded with rows of NaN); and ``target``, per query a tensor ``(T, 2)`` or
    list of pairs (or one tensor ``(N, T, 2)`` padded alike). ``compute`` gives a dictionary of fractions: ``map``,
    ``map@<threshold>``, ``recall@<threshold>``, and the same under ``<range>/`` for each range of lengths. A value over
    no query is NaN, with a warning.

    Args:
        thresholds: IoU thresholds in (0, 1]; reaching one counts.
        max_moments: only that many moments, as listed, are looked at per query; ``None`` for all.
        length_ranges: name to ``(above, up_to)``, to score again with only the true moments of these lengths (and all
            predictions); in the unit of the spans.
        missing: what no answer does: ``"zero"`` scores 0, ``"skip"`` leaves the query out of every mean.
        overlap: takes moments ``(N, P, 2)`` and true ones ``(N, T, 2)``, padded with rows of NaN, to their IoU
            ``(N, P, T)``, which is 0 at padding; R@1 is always by :func:`~m1lite.metrics.functional.temporal_iou`.
        validate_args: refuse targets that are reversed or not finite; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if a threshold is outside (0, 1] or ``max_moments`` is below 1; on update if shapes do not fit or a
            target holds no span.

    References:
        Lei et al. 2021, arXiv:2107.09609 (QVHighlights), section 5; jayleicn/moment_detr b7e553ac, standalone_eval.

    Example:
        >>> metric = MomentMeanAveragePrecision(thresholds=[0.5, 0.75])
        >>> metric.update([[[0.0, 6.0, 0.9], [10.0, 20.0, 0.5]], None], [[[0.0, 10.0], [10.0, 20.0]], [[3.0, 5.0]]])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'map': 0.312, 'map@0.5': 0.5, 'map@0.75': 0.125, 'recall@0.5': 0.5, 'recall@0.75': 0.0}
    """

    ap_sum: Tensor
    hits: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        max_moments: int | None = 10,
        length_ranges: Mapping[str, tuple[float, float]] | None = None,
        missing: Literal["zero", "skip"] = "zero",
        overlap: Callable[[Tensor, Tensor], Tensor] = cross_iou,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if max_moments is not None and max_moments < 1:
            raise ValueError(f"`max_moments` is {max_moments}; at least one moment must be looked at, or None for all.")
        self.thresholds = check_thresholds(thresholds)
        self.max_moments = max_moments
        self.length_ranges = dict(length_ranges or {})
        self.missing = check_missing(missing)
        self.overlap = overlap
        self.validate_args = validate_args
        num_ranges = 1 + len(self.length_ranges)  # the first is all lengths
        self.add_sums("ap_sum", "hits", shape=(num_ranges, len(self.thresholds)))
        self.add_sums("count", shape=(num_ranges,))

    def score(self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> Tensor:
        """Return the average precision of every query ``(N,)``, mean over thresholds; NaN without true moments."""
        prediction, target, _ = stack_sets(prediction, target, width=3)
        return self._average_precision(prediction, target).mean(-1)

    def update(self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> None:
        """Add queries."""
        prediction, target, answered = stack_sets(prediction, target, width=3)
        if self.validate_args:
            check_spans(target, padded=True)
        length = target[..., 1] - target[..., 0]
        ranges = self.length_ranges.values()
        kept = [~length.isnan(), *((length > above) & (length <= up_to) for above, up_to in ranges)]
        for index, keep in enumerate(kept):
            counted = keep.any(-1) & (answered | (self.missing == "zero"))  # (N,)
            true = target.masked_fill(~keep[..., None], float("nan"))
            precision = self._average_precision(prediction, true)
            best = _best_of_first(prediction, true)[:, None]
            reached = best >= best.new_tensor(self.thresholds)
            self.ap_sum[index] += torch.where(counted[:, None], precision, 0.0).sum(0)
            self.hits[index] += (reached & counted[:, None]).sum(0)
            self.count[index] += counted.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return ``map``, ``map@<threshold>`` and ``recall@<threshold>``, also of each range of lengths."""
        precisions = self.ratio(self.ap_sum, self.count[:, None])
        recalls = self.hits / self.count[:, None]
        found = {}
        for prefix, precision, recall in zip(
            ["", *(f"{n}/" for n in self.length_ranges)], precisions, recalls, strict=True
        ):
            found[f"{prefix}map"] = precision.mean()
            for kind, values in (("map", precision), ("recall", recall)):
                found.update({f"{prefix}{kind}@{t:g}": v for t, v in zip(self.thresholds, values, strict=True)})
        return found

    def _average_precision(self, prediction: Tensor, target: Tensor) -> Tensor:
        spans, confidence = prediction[:, : self.max_moments].split([2, 1], dim=-1)
        return moment_average_precision(
            spans, confidence[..., 0], target, thresholds=self.thresholds, overlap=self.overlap
        )


class TemporalIoUAUC(VideoMetric):
    r"""Areas under the share of samples that reach a threshold, over all thresholds, of IoU, precision and recall.

    .. math:: \mathrm{AUC} = \int_0^1 \frac1N \#\{i : v_i \ge \theta\} \, d\theta \quad\text{(trapezoids)}

    A finely sampled mean of the values. No answer (``None``) scores 0 on all three; an empty list is an answer, right
    where the target is empty too. VUE-TR compares as its presets do: ``strict=True`` for IoU, true spans not merged,
    samples without predicted time left out of precision and without true time out of recall.

    ``update`` takes ``prediction``, a tensor ``(N, P, 2)`` of starts and ends padded with rows of NaN, or a sequence
    with, per sample, a tensor ``(P, 2)``, a list of pairs or ``None`` for no answer; and ``target``, the same without
    ``None``. ``compute`` gives a dictionary of fractions: ``iou_auc``, ``precision_auc`` and ``recall_auc``; a value
    over no sample is NaN, with a warning.

    Args:
        overlap: takes sets of spans ``(N, P, 2)`` and ``(N, T, 2)``, padded with rows of NaN, to the IoU, precision and
            recall of every sample ``(N,)``; a NaN leaves that sample out of that area.
        num_thresholds: how many thresholds from 0 to 1, both ends included.
        strict: count IoU above the threshold instead of at or above it (precision and recall: always at or above).
        missing: what no answer does: ``"zero"`` scores 0, ``"skip"`` leaves the sample out of every area.
        validate_args: refuse targets that are reversed or not finite; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if there are less than 2 thresholds; on update if shapes do not fit or a target holds no span.

    References:
        Vidi team 2025, arXiv:2504.15681 (VUE-TR); bytedance/vidi fc30c870, VUE_TR/qa_eval.py.

    Example:
        >>> metric = TemporalIoUAUC()
        >>> metric.update([[[0.0, 4.0]], []], [[[0.0, 8.0]], []])
        >>> {name: round(value.item(), 4) for name, value in metric.compute().items()}
        {'iou_auc': 0.7525, 'precision_auc': 1.0, 'recall_auc': 0.7525}
    """

    reached: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        overlap: Callable[[Tensor, Tensor], Sequence[Tensor]] = overlap_scores,
        num_thresholds: int = 101,
        strict: bool = False,
        missing: Literal["zero", "skip"] = "zero",
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_thresholds < 2:
            raise ValueError(f"`num_thresholds` is {num_thresholds}; an area needs at least 2.")
        self.overlap = overlap
        self.num_thresholds = num_thresholds
        self.strict = strict
        self.missing = check_missing(missing)
        self.validate_args = validate_args
        self.add_sums("reached", shape=(3, num_thresholds))
        self.add_sums("count", shape=(3, 1))

    def score(self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> Tensor:
        """Return IoU, precision and recall of every sample ``(N, 3)``, 0 for no answer, NaN where one is left out."""
        return self._score(*stack_sets(prediction, target))

    def update(self, prediction: Tensor | Sequence[Any], target: Tensor | Sequence[Any]) -> None:
        """Add samples."""
        prediction, target, answered = stack_sets(prediction, target)
        if self.validate_args:
            check_spans(target, padded=True)
        values = self._score(prediction, target, answered).T[..., None]  # (3, N, 1)
        if self.missing == "skip":
            values = values.masked_fill(~answered[:, None], float("nan"))
        # Multiples of the step, not of the interval: thresholds then have the bits that numpy.linspace gives them.
        thresholds = torch.arange(self.num_thresholds, device=values.device, dtype=torch.float64)
        thresholds = (thresholds * (1 / (self.num_thresholds - 1))).to(values.dtype)
        reached = values >= thresholds  # (3, N, thresholds)
        if self.strict:
            reached[0] = values[0] > thresholds
        self.reached += reached.sum(1)
        self.count += (~values.isnan()).sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Return ``iou_auc``, ``precision_auc`` and ``recall_auc``."""
        areas = torch.trapezoid(self.ratio(self.reached, self.count), dx=1 / (self.num_thresholds - 1))
        return dict(zip(("iou_auc", "precision_auc", "recall_auc"), areas, strict=True))

    def _score(self, prediction: Tensor, target: Tensor, answered: Tensor) -> Tensor:
        values = torch.stack(list(self.overlap(prediction, target)), dim=-1)  # (N, 3)
        return torch.where(answered[:, None], values, 0.0)


def _best_of_first(prediction: Tensor, target: Tensor) -> Tensor:
    """IoU of the first listed moment with the best true one ``(N,)``, 0 where one of the two is missing."""
    if prediction.shape[1] == 0 or target.shape[1] == 0:
        return prediction.new_zeros(len(prediction))
    return temporal_iou(prediction[:, :1, :2], target).nan_to_num(0.0).amax(-1)
