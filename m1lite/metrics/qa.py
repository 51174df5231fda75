"""Question answering as metrics: the share of right options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from m1lite.metrics.functional.qa import choice_match

if TYPE_CHECKING:
    from collections.abc import Sequence


class MultipleChoiceAccuracy(Metric):
    """Share of samples in which the right option was chosen.

    No answer is wrong and stays in the denominator. ``accuracy`` is the mean of the per-sample :meth:`score`.

    ``update`` takes ``prediction``, an integer tensor ``(N,)`` (negative for no answer) or a sequence of N indices in
    which ``None`` is no answer, and ``target``, an integer tensor ``(N,)``. ``compute`` gives a dictionary of
    fractions: ``accuracy``, and ``answered``, the share of samples with an answer; without any sample they are NaN,
    with a warning.

    Args:
        validate_args: refuse negative targets; costs one read-back per update.
        kwargs: passed on to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: on update, if the lengths differ or a target is negative.

    Example:
        >>> metric = MultipleChoiceAccuracy()
        >>> metric.update([2, 0, None, 1], torch.tensor([2, 1, 0, 1]))
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'accuracy': 0.5, 'answered': 0.75}
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    right: Tensor
    answered: Tensor
    count: Tensor

    def __init__(self, *, validate_args: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.validate_args = validate_args
        for name in ("right", "answered", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @staticmethod
    def score(prediction: Tensor | Sequence[int | None], target: Tensor) -> Tensor:
        """Return 1 or 0 for every sample ``(N,)``."""
        return choice_match(_as_indices(prediction, target), target)

    def update(self, prediction: Tensor | Sequence[int | None], target: Tensor) -> None:
        """Add samples."""
        if self.validate_args and bool((target < 0).any()):
            row = int((target < 0).nonzero()[0])
            raise ValueError(f"`target[{row}]` is {target[row].item()}; the right option is an index from 0.")
        prediction = _as_indices(prediction, target)
        self.right += choice_match(prediction, target).sum()
        self.answered += (prediction >= 0).sum()
        self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy`` and ``answered``."""
        if self.count == 0:
            rank_zero_warn("`MultipleChoiceAccuracy` saw no samples; its values are NaN.", UserWarning)
        return {"accuracy": self.right / self.count, "answered": self.answered / self.count}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the values (needs matplotlib)."""
        return self._plot(val, ax)


def _as_indices(prediction: Tensor | Sequence[int | None], target: Tensor) -> Tensor:
    """Write chosen options as indices, -1 for no answer."""
    if isinstance(prediction, Tensor):
        return prediction
    return torch.tensor(
        [-1 if index is None else index for index in prediction], dtype=torch.long, device=target.device
    )
