"""Ordering as a metric: how often an order is exactly right, and how near it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.functional.ordering import OrderScores, order_score

if TYPE_CHECKING:
    from collections.abc import Sequence

    Orders = Tensor | Sequence[Tensor | Sequence[int] | None]


class OrderAccuracy(VideoMetric):
    r"""Exact matches, step accuracy and Kendall's tau of predicted orders.

    Each value but ``answered`` is the mean of the per-sample :meth:`score`. No answer scores 0 in all three and stays
    in the denominators; for tau 0 is also what chance gives, so that a reversed order scores below no answer.

    ``update`` takes ``prediction`` and ``target``, an integer tensor ``(N, K)`` of items in their order, padded with -1
    at the end, or a sequence of N orders of any length; in ``prediction``, None is no answer. ``compute`` gives a
    dictionary: ``exact`` and ``step_accuracy`` in [0, 1], ``kendall_tau`` in [-1, 1], and ``answered``, the share of
    samples with an answer; without any sample they are NaN, with a warning.

    Args:
        validate_args: refuse true orders that hold an item twice; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: on update, if the numbers of samples differ or a true order holds an item twice.
        TypeError: on update, if the items are not integers.

    References:
        As :func:`~m1lite.metrics.functional.order_score`.

    Example:
        >>> metric = OrderAccuracy()
        >>> metric.update([[2, 0, 1], [1, 0], None], [[2, 0, 1], [0, 1], [0, 1, 2, 3]])
        >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}
        {'exact': 0.33, 'step_accuracy': 0.33, 'kendall_tau': 0.0, 'answered': 0.67}
    """

    plot_lower_bound = -1.0

    exact_sum: Tensor
    step_sum: Tensor
    tau_sum: Tensor
    answered: Tensor
    count: Tensor

    def __init__(self, *, validate_args: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validate_args = validate_args
        self.add_sums("exact_sum", "step_sum", "tau_sum", "answered", "count")

    def score(self, prediction: Orders, target: Orders) -> OrderScores:
        """Return exact match, step accuracy and tau of every sample ``(N,)``."""
        return order_score(*self._padded(prediction, target))

    def update(self, prediction: Orders, target: Orders) -> None:
        """Add samples."""
        told, true = self._padded(prediction, target)
        if self.validate_args:
            _check_orders(true)
        scores = order_score(told, true)
        self.exact_sum += scores.exact.sum(dtype=torch.float64)
        self.step_sum += scores.step_accuracy.sum(dtype=torch.float64)
        self.tau_sum += scores.kendall_tau.sum(dtype=torch.float64)
        self.answered += (told >= 0).any(-1).sum()
        self.count += len(true)

    def compute(self) -> dict[str, Tensor]:
        """Return ``exact``, ``step_accuracy``, ``kendall_tau`` and ``answered``."""
        sums = torch.stack([self.exact_sum, self.step_sum, self.tau_sum, self.answered])
        return dict(
            zip(("exact", "step_accuracy", "kendall_tau", "answered"), self.ratio(sums, self.count), strict=True)
        )

    def _padded(self, prediction: Orders, target: Orders) -> tuple[Tensor, Tensor]:
        if len(prediction) != len(target):
            raise ValueError(
                f"`prediction` holds {len(prediction)} orders for {len(target)} targets; give one, or None, for each."
            )
        return self._rows(prediction), self._rows(target)

    def _rows(self, orders: Orders) -> Tensor:
        """Write orders as one integer tensor ``(N, K)``, padded with -1."""
        if isinstance(orders, Tensor):
            return orders
        if not len(orders):
            return torch.zeros(0, 0, dtype=torch.long, device=self.device)
        empty = torch.zeros(0, dtype=torch.long)
        rows = [torch.as_tensor(order) if order is not None and len(order) else empty for order in orders]
        for index, row in enumerate(rows):
            if row.is_floating_point():
                raise TypeError(f"Order {index} is {row.tolist()}; items are integers.")
        return pad_sequence([row.long() for row in rows], batch_first=True, padding_value=-1).to(self.device)


def _check_orders(target: Tensor) -> None:
    """Refuse true orders that hold an item twice."""
    items = target.sort(-1).values
    twice = (items[:, 1:] == items[:, :-1]) & (items[:, 1:] >= 0)
    if bool(twice.any()):
        row = int(twice.any(-1).nonzero()[0])
        raise ValueError(f"`target[{row}]` is {target[row].tolist()}; a true order holds each item once.")
