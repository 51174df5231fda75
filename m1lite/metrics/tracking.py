"""Tracking as metrics: average overlap with success rates (GOT-10k), success and precision curves (OTB, LaSOT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics._tracks import Boxes, Tracks, check_targets, count_frames, stack_tracks
from m1lite.metrics.functional.tracking import box_iou_sequence, center_error

_CURVE = (*(0.05 * step for step in range(20)), 1.0)
"""Overlap thresholds of a success curve."""


class FrameErrors(NamedTuple):
    """How far a predicted box is from the true one, each ``(N, T)``."""

    overlap: Tensor
    """Intersection over union."""
    center: Tensor
    """Distance of the centres, pixels."""
    normalized_center: Tensor
    """Distance of the centres in widths and heights of the true box."""


def overlap_or_zero(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the IoU of boxes ``(..., T, 4)``, 0 where there is no answer."""
    return box_iou_sequence(prediction, target).nan_to_num(nan=0.0)


def frame_errors(prediction: Tensor, target: Tensor) -> FrameErrors:
    """Measure boxes ``(..., T, 4)`` given as left, top, right, bottom; all NaN where there is no answer."""
    normalized = center_error(prediction, target, normalize=True)
    return FrameErrors(box_iou_sequence(prediction, target), center_error(prediction, target), normalized)


class TrackingOverlap(VideoMetric):
    r"""Average overlap, and success rates at overlap thresholds, of one tracked object per sequence.

    The overlap of a frame is the IoU of its two boxes (:func:`~m1lite.metrics.functional.box_iou_sequence`), the first
    frame, whose box the tracker is given, left out. A frame without an answer scores 0 and counts. ``ao`` is the mean
    overlap, ``sr@<threshold>`` the share of frames whose overlap is :math:`\ge` the threshold, both

    - over all frames, so that long sequences weigh more (``average="frame"``);
    - over frames within a sequence, then over sequences (``"sequence"``): then ``ao`` is the mean of the per-sample
      :meth:`score`;
    - over frames, then over the sequences of a class, then over classes (``"class"``): the mAO and mSR of the GOT-10k
      paper.

    Sequences without a frame to score, and classes without a sequence, leave the mean.

    ``update`` takes

    - ``prediction``: ``(N, T, 4)``, boxes as left, top, right, bottom in the unit of the targets, NaN for no answer; or
      a sequence of N tensors or lists ``(T_i, 4)`` in which ``None`` is no answer at all;
    - ``target``: ``(N, T, 4)``, or N tensors or lists ``(T_i, 4)``; what ``mask`` leaves out may hold anything;
    - ``mask``: bool ``(N, T)``, or N entries ``(T_i,)``; false on padding and on frames without the object;
    - ``labels``: integers ``(N,)``, the class of each sequence, with ``average="class"`` only.

    ``compute`` gives a dictionary of fractions: ``ao`` and ``sr@<threshold>``; without any frame they are NaN, with a
    warning.

    Args:
        thresholds: overlaps in [0, 1].
        strict: count overlaps above the threshold only. The GOT-10k toolkit does.
        average: what one sample of the mean is, see above. The GOT-10k toolkit averages frames.
        num_classes: number of classes, with ``average="class"`` only; labels are in [0, num_classes).
        skip_first: leave the first frame of each sequence out. VideoChat-R1 counts it.
        overlap: prediction and target ``(N, T, 4)`` to one overlap per frame ``(N, T)``. What it makes of boxes of NaN
            (no answer) stands.
        validate_args: refuse true boxes that count and are reversed or not finite; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is out of its range; on update if shapes don't fit, labels are missing or out of
            range, or a target is no box.

    References:
        Huang et al. 2019, arXiv:1810.11981 (GOT-10k), section 4.1. Thresholds are inclusive here, the toolkit's are
        not.

    Example:
        >>> metric = TrackingOverlap(average="sequence")
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [1, 0, 5, 4], [2, 0, 6, 4]])
        >>> metric.update([boxes, None], [torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4]]), boxes])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'ao': 0.233, 'sr@0.5': 0.25, 'sr@0.75': 0.0}
    """

    totals: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = (0.5, 0.75),
        strict: bool = False,
        average: Literal["frame", "sequence", "class"] = "frame",
        num_classes: int | None = None,
        skip_first: bool = True,
        overlap: Callable[[Tensor, Tensor], Tensor] = overlap_or_zero,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for threshold in thresholds:
            if not 0 <= threshold <= 1:
                raise ValueError(f"`thresholds` holds {threshold}; an overlap lies in [0, 1].")
        if average not in ("frame", "sequence", "class"):
            raise ValueError(f'`average` is {average!r}; it must be "frame", "sequence" or "class".')
        if (num_classes is not None) != (average == "class") or (num_classes is not None and num_classes < 1):
            raise ValueError(
                f'`num_classes` is {num_classes} with average={average!r}; average="class" needs at least 1, the '
                "others None."
            )
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.strict = strict
        self.average = average
        self.num_classes = num_classes
        self.skip_first = skip_first
        self.overlap = overlap
        self.validate_args = validate_args
        self.add_sums("totals", shape=(num_classes or 1, 1 + len(self.thresholds)))
        self.add_sums("count", shape=(num_classes or 1,))

    def score(self, prediction: Boxes, target: Boxes, mask: Boxes | None = None) -> Tensor:
        """Return the mean overlap of every sequence ``(N,)``, NaN for one without a frame to score."""
        tracks = stack_tracks(prediction, target, mask, skip_first=self.skip_first)
        overlap = self.overlap(tracks.prediction, tracks.target)
        return torch.where(tracks.counted, overlap, 0.0).sum(-1) / tracks.counted.sum(-1)

    def update(
        self,
        prediction: Boxes,
        target: Boxes,
        mask: Boxes | None = None,
        labels: Tensor | Sequence[int] | None = None,
    ) -> None:
        """Add sequences."""
        tracks = stack_tracks(prediction, target, mask, skip_first=self.skip_first)
        classes = self._read_labels(labels, tracks)
        if self.validate_args:
            check_targets(tracks.target, tracks.counted)
        sums = self._sum_frames(tracks)
        frames = tracks.counted.sum(-1)
        if self.average == "frame":
            self.totals += sums.sum(0)
            self.count += frames.sum()
            return
        sums /= frames.clamp(min=1)[:, None]
        scored = (frames > 0).double()
        if classes is None:
            self.totals += sums.sum(0)
            self.count += scored.sum()
        else:
            self.totals.index_add_(0, classes, sums)
            self.count.index_add_(0, classes, scored)

    def compute(self) -> dict[str, Tensor]:
        """Return ``ao`` and ``sr@<threshold>``."""
        means = self.totals / self.count.clamp(min=1)[:, None]  # (classes, 1 + thresholds)
        values = self.ratio(means.sum(0), (self.count > 0).sum())
        names = ("ao", *(f"sr@{threshold:g}" for threshold in self.thresholds))
        return dict(zip(names, values, strict=True))

    def _sum_frames(self, tracks: Tracks) -> Tensor:
        """Return the summed overlap, and the frames above each threshold, of every sequence: float64 ``(N, 1 + K)``."""
        overlap = self.overlap(tracks.prediction, tracks.target)
        sums = [torch.where(tracks.counted, overlap, 0.0).sum(-1, dtype=torch.float64)]
        for threshold in self.thresholds:  # a plain number is compared in the dtype of the overlap
            hits = overlap > threshold if self.strict else overlap >= threshold
            sums.append(count_frames(hits, tracks.counted).double())
        return torch.stack(sums, -1)

    def _read_labels(self, labels: Tensor | Sequence[int] | None, tracks: Tracks) -> Tensor | None:
        """Return one class per sequence, None where classes don't matter."""
        if self.num_classes is None:
            if labels is not None:
                raise ValueError(f'`labels` are given, but average={self.average!r}; they need average="class".')
            return None
        if labels is None:
            raise ValueError('`labels` is None; average="class" needs the class of each sequence.')
        classes = torch.as_tensor(labels, dtype=torch.long, device=tracks.target.device)
        if classes.shape != tracks.target.shape[:1]:
            raise ValueError(f"`labels` has shape {tuple(classes.shape)}; it must be ({len(tracks.target)},).")
        if self.validate_args:
            wrong = (classes < 0) | (classes >= self.num_classes)
            if bool(wrong.any()):
                row = int(wrong.nonzero()[0])
                raise ValueError(f"`labels[{row}]` is {int(classes[row])}; it must be in [0, {self.num_classes}).")
        return classes


class SuccessPrecision(VideoMetric):
    r"""Success curve and precision of one tracked object per sequence, each sequence counting once.

    - ``success_auc``: share of frames whose overlap is above :math:`t`, averaged over :math:`t = 0, 0.05, \dots, 1`
      (strict, as in all official code: a perfect tracker gets 20/21); ``success@0.5`` and ``success@0.75`` are two
      points of that curve. ``success_auc`` is the mean of the per-sample :meth:`score`.
    - ``precision``: share of frames whose centres are at most ``precision_pixels`` apart.
    - ``normalized_precision``: share of frames whose centres are at most ``normalized_distance`` apart, in widths and
      heights of the true box.

    The first frame, whose box the tracker is given, is left out; a frame without an answer is a miss and counts.
    Sequences without a frame to score leave the mean.

    ``update`` takes ``prediction``, ``target`` and ``mask`` as :class:`TrackingOverlap` does; boxes must be in pixels
    for ``precision``. ``compute`` gives a dictionary of the fractions above; without any frame they are NaN, with a
    warning.

    Args:
        precision_pixels: distance of centres that still is a hit.
        normalized_distance: normalised distance of centres that still is a hit.
        skip_first: leave the first frame of each sequence out. OTB and LaSOT code replaces its box by the true one and
            counts it.
        errors: prediction and target ``(N, T, 4)`` to overlap and distances per frame; NaN is a miss.
        validate_args: refuse true boxes that count and are reversed or not finite; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if a distance is negative; on update if shapes don't fit or a target is no box.

    References:
        Wu et al. 2015 (OTB); Fan et al. 2019, arXiv:1809.07845 (LaSOT); Müller et al. 2018, arXiv:1803.10794, for the
        normalised distance, here taken at one threshold as the pytracking toolkit reports it.

    Example:
        >>> metric = SuccessPrecision()
        >>> true = torch.tensor([[0.0, 0, 50, 50], [0, 0, 50, 50], [0, 0, 50, 50]])
        >>> metric.update([true + torch.tensor([[0.0], [5], [30]])], [true])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'success_auc': 0.381, 'success@0.5': 0.5, 'success@0.75': 0.0, 'precision': 0.5, 'normalized_precision': 0.5}
    """

    success: Tensor
    precision: Tensor
    normalized_precision: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        precision_pixels: float = 20.0,
        normalized_distance: float = 0.2,
        skip_first: bool = True,
        errors: Callable[[Tensor, Tensor], FrameErrors] = frame_errors,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("precision_pixels", precision_pixels), ("normalized_distance", normalized_distance)):
            if not value >= 0:
                raise ValueError(f"`{name}` is {value}; a distance is at least 0.")
        self.precision_pixels = precision_pixels
        self.normalized_distance = normalized_distance
        self.skip_first = skip_first
        self.errors = errors
        self.validate_args = validate_args
        self.add_sums("success", shape=(len(_CURVE),))
        self.add_sums("precision", "normalized_precision", "count")

    def score(self, prediction: Boxes, target: Boxes, mask: Boxes | None = None) -> Tensor:
        """Return the mean of every sequence's success curve ``(N,)``, NaN for one without a frame to score."""
        tracks = stack_tracks(prediction, target, mask, skip_first=self.skip_first)
        overlap = self.errors(tracks.prediction, tracks.target).overlap
        return _count_curve(overlap, tracks.counted).mean(-1) / tracks.counted.sum(-1)

    def update(self, prediction: Boxes, target: Boxes, mask: Boxes | None = None) -> None:
        """Add sequences."""
        tracks = stack_tracks(prediction, target, mask, skip_first=self.skip_first)
        if self.validate_args:
            check_targets(tracks.target, tracks.counted)
        errors = self.errors(tracks.prediction, tracks.target)
        frames = tracks.counted.sum(-1)
        lengths = frames.clamp(min=1).double()
        near = count_frames(errors.center <= self.precision_pixels, tracks.counted)
        near_normalized = count_frames(errors.normalized_center <= self.normalized_distance, tracks.counted)
        self.success += (_count_curve(errors.overlap, tracks.counted) / lengths[:, None]).sum(0)
        self.precision += (near / lengths).sum()
        self.normalized_precision += (near_normalized / lengths).sum()
        self.count += (frames > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the values that the class names."""
        curve = self.ratio(self.success, self.count)
        return {
            "success_auc": curve.mean(),
            "success@0.5": curve[10],
            "success@0.75": curve[15],
            "precision": self.precision / self.count,
            "normalized_precision": self.normalized_precision / self.count,
        }


def _count_curve(overlap: Tensor, counted: Tensor) -> Tensor:
    """Count the frames above each threshold of the success curve: float64 ``(N, 21)``."""
    return torch.stack([count_frames(overlap > threshold, counted) for threshold in _CURVE], -1).double()
