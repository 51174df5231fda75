"""What a preset is: one benchmark's official way from a model's answers to reported numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.metrics._base import VideoMetric

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Preset(Generic[Item]):
    """How the official code of a benchmark scores, as three parts that can also be used alone."""

    name: str
    read: Callable[[Item], tuple[Any, ...] | None]
    """One item (its docstring says of what form) to the arguments of ``metric.update`` for this one sample; None where
    the official code leaves the item out of every denominator."""
    metric: Callable[[], VideoMetric]
    """Makes the metric with the arguments that give the official protocol."""
    report: Callable[[Mapping[str, Tensor]], dict[str, float]]
    """What ``compute`` gave, under the official keys, on the official scale, rounded as there."""
    source: str
    """Repository and commit whose behaviour this is."""

    def score(self, items: Iterable[Item]) -> dict[str, float]:
        """Score all items of a split as the official script does.

        Args:
            items: in the form that ``read`` documents.

        Returns:
            The official numbers. Where the official script fails (no items, for one) they are NaN, with a warning.
        """
        metric = self.metric()
        for item in items:
            arguments = self.read(item)
            if arguments is not None:
                metric.update(*arguments)
        return self.report(metric.compute())
