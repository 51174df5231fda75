"""What the metric classes share: how states are declared and merged, what no samples give, how values are drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn
from typing_extensions import override


class VideoMetric(Metric):
    """A torchmetrics metric whose states are sums, so that ranks, parts and batches merge by adding.

    Subclasses declare their states with :meth:`add_sums`, hand their functional's scores to them in ``update``, and
    divide with :meth:`ratio` in ``compute``. Values are fractions in [0, 1], larger is better, unless they say so.
    """

    full_state_update = False  # forward evaluates the batch alone; None would forbid merge_state
    is_differentiable = False
    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    unshared: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # A MetricCollection lets metrics share states for good if these are equal after the first batch, whatever the
        # metrics' arguments: recall at 0.3 and at 0.5 of a batch without a hit, for one. NaN is equal to nothing.
        self.add_state("unshared", torch.tensor(float("nan"), dtype=torch.float64), dist_reduce_fx="sum")

    def add_sums(self, *names: str, shape: tuple[int, ...] = ()) -> None:
        """Declare float64 states that start at 0 and are added over batches, ranks and merged metrics."""
        for name in names:
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def ratio(self, total: Tensor, count: Tensor) -> Tensor:
        """Divide a sum by how many were counted; NaN, with a warning, where none were."""
        if not bool((count > 0).all()):
            rank_zero_warn(f"`{type(self).__name__}` saw no samples for some of its values; they are NaN.", UserWarning)
        return total / torch.where(count > 0, count, float("nan"))

    @override
    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add another metric's states to this one's."""
        if isinstance(incoming_state, dict):
            incoming_state = {"unshared": self.unshared, **incoming_state}
        super().merge_state(incoming_state)
        # torchmetrics 1.9 keeps the value computed before the merge, and doesn't count the updates that came in.
        self._computed = None
        self._update_count += incoming_state._update_count if isinstance(incoming_state, Metric) else 1

    @override
    def set_dtype(self, dst_type: Any) -> Any:
        """Leave the states as they are: sums stay float64 whatever the model's precision."""
        return self

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the values (needs matplotlib)."""
        return self._plot(val, ax)
