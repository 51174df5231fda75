"""What the shared test of the metric classes runs over: every exported class with arguments and a way to draw samples.

To add a class: write a function that draws a batch (or take one that is here) and append a :class:`Citizen`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from m1lite import metrics

Batch = dict[str, Any]
"""The keyword arguments of ``update``."""
Draw = Callable[[int, torch.Generator], Batch]
"""Number of samples (0 too) and source of chance to a batch."""


@dataclass(frozen=True, kw_only=True)
class Citizen:
    """One class as the shared test builds and feeds it."""

    metric: str
    """Name in ``m1lite.metrics``."""
    draw: Draw
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the constructor; they must survive pickling. Tests that need a fresh instance call :meth:`make`."""
    note: str = ""
    """Tells two entries of one class apart."""
    means: Mapping[str, Callable[[Any], Tensor]] = field(default_factory=dict)
    """Keys of ``compute`` that the docstring calls a mean of scores, with what takes those from ``score(**batch)``."""
    grows: bool = False
    """Whether the states keep every sample; all others stay of one size."""
    validates: bool = True
    """Whether the constructor has ``validate_args``."""

    def make(self, **more: Any) -> Any:
        """Build the metric."""
        return getattr(metrics, self.metric)(**self.arguments, **more)

    def __str__(self) -> str:
        return f"{self.metric}-{self.note}" if self.note else self.metric


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def draw_spans(count: int, generator: torch.Generator) -> Tensor:
    """Spans in seconds ``(count, 2)``, start <= end, within 20 s."""
    return (20 * uniform(generator, count, 2)).sort(-1).values


def whole(generator: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """Whole numbers from ``low`` up to, not including, ``high``."""
    return torch.randint(low, high, shape, generator=generator)


def span_pairs(count: int, generator: torch.Generator) -> Batch:
    return {"prediction": draw_spans(count, generator), "target": draw_spans(count, generator)}


def choices(count: int, generator: torch.Generator) -> Batch:
    return {"prediction": whole(generator, -1, 4, count), "target": whole(generator, 0, 4, count)}


CITIZENS = [
    Citizen(metric="TemporalIoU", draw=span_pairs, means={"miou": lambda iou: iou}),
    Citizen(metric="TemporalIoU", note="thresholds", arguments={"thresholds": [0.1, 0.9]}, draw=span_pairs),
    Citizen(metric="MultipleChoiceAccuracy", draw=choices, means={"accuracy": lambda right: right}),
]
