"""Temporal grounding as a metric: mean IoU and the share of samples above IoU thresholds, one span per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from m1lite.metrics._inputs import stack_answers
from m1lite.metrics.functional.grounding import temporal_iou

if TYPE_CHECKING:
    from collections.abc import Sequence


class TemporalIoU(Metric):
    r"""Mean IoU, and R@1 at IoU thresholds, of one predicted span per sample.

    A missing answer scores 0 and stays in every denominator; so does a reversed one. R@1 counts IoU :math:`\ge` the
    threshold. ``miou`` is the mean of the per-sample :meth:`score`.

    ``update`` takes ``prediction``, a tensor ``(N, 2)`` of starts and ends (NaN for no answer) or a sequence of N pairs
    in which ``None`` is no answer, and ``target``, a tensor ``(N, 2)`` in the same unit. ``compute`` gives a dictionary
    of fractions: ``miou`` and ``recall@<threshold>``; without any sample they are NaN, with a warning.

    Args:
        thresholds: IoU thresholds in (0, 1].
        validate_args: refuse targets that are reversed or not finite; costs one read-back per update.
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

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    iou_sum: Tensor
    hits: Tensor
    count: Tensor

    def __init__(
        self, *, thresholds: Sequence[float] = (0.3, 0.5, 0.7), validate_args: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for threshold in thresholds:
            if not 0 < threshold <= 1:
                raise ValueError(f"`thresholds` holds {threshold}; an IoU threshold lies in (0, 1].")
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.validate_args = validate_args
        self.add_state("iou_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("hits", torch.zeros(len(self.thresholds), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @staticmethod
    def score(prediction: Tensor | Sequence[Any], target: Tensor) -> Tensor:
        """Return the IoU of every sample ``(N,)``, 0 for no answer."""
        prediction = stack_answers(prediction, target)
        if prediction.shape != target.shape:
            raise ValueError(
                f"`prediction` has shape {tuple(prediction.shape)} and `target` {tuple(target.shape)}; both (N, 2)."
            )
        answered = ~prediction.isnan().any(-1)
        return torch.where(answered, temporal_iou(prediction, target), 0.0)

    def update(self, prediction: Tensor | Sequence[Any], target: Tensor) -> None:
        """Add samples."""
        if self.validate_args:
            _check_spans(target)
        iou = self.score(prediction, target)
        # Compared in the dtype of the scores: 0.7 in float32 lies below 0.7 in float64.
        thresholds = torch.tensor(self.thresholds, dtype=iou.dtype, device=iou.device)
        self.iou_sum += iou.sum(dtype=torch.float64)
        self.hits += (iou[:, None] >= thresholds).sum(0)
        self.count += len(iou)

    def compute(self) -> dict[str, Tensor]:
        """Return ``miou`` and ``recall@<threshold>``."""
        if self.count == 0:
            rank_zero_warn("`TemporalIoU` saw no samples; its values are NaN.", UserWarning)
        recalls = self.hits / self.count
        names = (f"recall@{threshold:g}" for threshold in self.thresholds)
        return {"miou": self.iou_sum / self.count, **dict(zip(names, recalls, strict=True))}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the values (needs matplotlib)."""
        return self._plot(val, ax)


def _check_spans(target: Tensor) -> None:
    """Refuse targets that are reversed or not finite."""
    if target.ndim != 2 or target.shape[-1] != 2:
        raise ValueError(f"`target` has shape {tuple(target.shape)}; it must be (N, 2).")
    length = target[:, 1] - target[:, 0]
    fine = (length >= 0) & (length < float("inf"))
    if not bool(fine.all()):
        row = int((~fine).nonzero()[0])
        raise ValueError(f"`target[{row}]` is {target[row].tolist()}; a span needs finite start <= end.")
