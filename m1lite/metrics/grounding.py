"""Temporal grounding as a metric: mean IoU and the share of samples above IoU thresholds, one span per sample.

Several spans per sample are in moments.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics._inputs import stack_answers
from m1lite.metrics._spans import check_spans
from m1lite.metrics.functional.grounding import temporal_iou

if TYPE_CHECKING:
    from collections.abc import Sequence


class TemporalIoU(VideoMetric):
    r"""Mean IoU, and R@1 at IoU thresholds, of one predicted span per sample.

    .. math:: \mathrm{mIoU} = \frac1N \sum_i \mathrm{IoU}_i, \quad R@\theta = \#\{i : \mathrm{IoU}_i \ge \theta\} / N

    A missing answer scores 0 and stays in every denominator; so does a reversed one. ``miou`` is the mean of the
    per-sample :meth:`score`. Most official scripts agree (lmms-eval, TimeLens, VTimeLLM, VideoChat-R1); Time-R1 counts
    IoU above the threshold only (``strict=True``).

    ``update`` takes ``prediction``, a tensor ``(N, 2)`` of starts and ends (NaN for no answer) or a sequence of N pairs
    in which ``None`` is no answer, and ``target``, a tensor ``(N, 2)`` in the same unit. ``compute`` gives a dictionary
    of fractions: ``miou`` and ``recall@<threshold>``; without any sample they are NaN, with a warning.

    Args:
        thresholds: IoU thresholds in (0, 1].
        strict: count IoU above the threshold instead of at or above it.
        missing: what no answer does: ``"zero"`` scores 0, ``"skip"`` leaves the sample out of every mean.
        validate_args: refuse targets that are reversed or not finite; costs one read-back per update. Without it, such
            a target scores 0.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if a threshold is outside (0, 1]; on update if shapes do not fit or a target is no span.

    References:
        Gao et al. 2017, arXiv:1705.02101 (Charades-STA), section 5.

    Example:
        >>> metric = TemporalIoU(thresholds=[0.5])
        >>> metric.update([[0.0, 4.0], None], torch.tensor([[0.0, 5.0], [2.0, 3.0]]))
        >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}
        {'miou': 0.4, 'recall@0.5': 0.5}
    """

    iou_sum: Tensor
    hits: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        thresholds: Sequence[float] = (0.3, 0.5, 0.7),
        strict: bool = False,
        missing: Literal["zero", "skip"] = "zero",
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.thresholds = check_thresholds(thresholds)
        self._column = torch.tensor(self.thresholds)[:, None]
        self.strict = strict
        self.missing = check_missing(missing)
        self.validate_args = validate_args
        self.add_sums("iou_sum", "count")
        self.add_sums("hits", shape=(len(self.thresholds),))

    @staticmethod
    def score(prediction: Tensor | Sequence[Any], target: Tensor) -> Tensor:
        """Return the IoU of every sample ``(N,)``, 0 for no answer."""
        prediction = stack_answers(prediction, target)
        if prediction.shape != target.shape:
            raise ValueError(
                f"`prediction` has shape {tuple(prediction.shape)} and `target` {tuple(target.shape)}; both (N, 2)."
            )
        return temporal_iou(prediction, target).nan_to_num(0.0)

    def update(self, prediction: Tensor | Sequence[Any], target: Tensor) -> None:
        """Add samples."""
        if self.validate_args:
            check_spans(target, padded=False)
        prediction = stack_answers(prediction, target)
        iou = self.score(prediction, target)
        # Compared in the dtype of the scores: 0.7 in float32 lies below 0.7 in float64. Kept from update to update.
        if self._column.dtype != iou.dtype or self._column.device != iou.device:
            self._column = iou.new_tensor(self.thresholds)[:, None]
        above = iou > self._column if self.strict else iou >= self._column  # (thresholds, N)
        # A sample without an answer has no IoU to add, so that leaving it out changes the count only. In place, because
        # setting an attribute of a module takes as long as the addition.
        self.iou_sum.add_(iou.sum(dtype=torch.float64))
        self.hits.add_(above.sum(1))
        self.count.add_(len(iou) if self.missing == "zero" else (~prediction.isnan().any(-1)).sum())

    def compute(self) -> dict[str, Tensor]:
        """Return ``miou`` and ``recall@<threshold>``."""
        recalls = self.ratio(self.hits, self.count)
        names = (f"recall@{threshold:g}" for threshold in self.thresholds)
        return {"miou": self.iou_sum / self.count, **dict(zip(names, recalls, strict=True))}


def check_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Return IoU thresholds as a tuple, if all lie in (0, 1]."""
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise ValueError(f"`thresholds` holds {threshold}; an IoU threshold lies in (0, 1].")
    return tuple(float(threshold) for threshold in thresholds)


def check_missing(missing: Literal["zero", "skip"]) -> Literal["zero", "skip"]:
    """Return what no answer does, if it is one of the two."""
    if missing not in ("zero", "skip"):
        raise ValueError(f"`missing` is {missing!r}; it is 'zero' (scores 0) or 'skip' (leaves every mean).")
    return missing
