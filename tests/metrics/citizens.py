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


def draw_sets(count: int, generator: torch.Generator, *, most: int = 3) -> Tensor:
    """Sets of up to ``most`` spans ``(count, most, 2)``, padded with NaN."""
    spans = draw_spans(count * most, generator).reshape(count, most, 2)
    return spans.masked_fill(uniform(generator, count, most, 1) < 0.3, float("nan"))


def span_sets(count: int, generator: torch.Generator) -> Batch:
    return {"prediction": draw_sets(count, generator), "target": draw_sets(count, generator)}


def listed_span_sets(count: int, generator: torch.Generator) -> Batch:
    """Nested lists, some without answer."""
    chosen = [[row for row in spans if row[0] == row[0]] for spans in draw_sets(count, generator).tolist()]
    skipped = (uniform(generator, count) < 0.3).tolist()
    target = [spans[~spans.isnan().any(-1)] for spans in draw_sets(count, generator)]
    return {
        "prediction": [None if skip else rows for skip, rows in zip(skipped, chosen, strict=True)],
        "target": target,
    }


def moments(count: int, generator: torch.Generator) -> Batch:
    """Ranked moments, and at least one true moment per query."""
    ranked = torch.cat([draw_sets(count, generator, most=4), uniform(generator, count, 4, 1)], dim=-1)
    target = torch.cat([draw_sets(count, generator), draw_spans(count, generator)[:, None]], dim=1)
    return {"prediction": ranked, "target": target}


def frames_and_clues(count: int, generator: torch.Generator) -> Batch:
    return {"prediction": 20 * uniform(generator, count, 5), "target": draw_sets(count, generator)}


def choices(count: int, generator: torch.Generator) -> Batch:
    return {"prediction": whole(generator, -1, 4, count), "target": whole(generator, 0, 4, count)}


def open_answers(count: int, generator: torch.Generator) -> Batch:
    """Texts of three words; some without answer, some with two true texts."""
    words = [whole(generator, 0, 4, count, 3).tolist() for _ in range(2)]
    told, true = ([" ".join(("a", "red", "dog", "runs")[word] for word in row) for row in side] for side in words)
    odd = whole(generator, 0, 4, count).tolist()
    return {
        "prediction": [None if index == 0 else text for index, text in zip(odd, told, strict=True)],
        "target": [[text, "red dog"] if index == 1 else text for index, text in zip(odd, true, strict=True)],
    }


CITIZENS = [
    Citizen(metric="TemporalIoU", draw=span_pairs, means={"miou": lambda iou: iou}),
    Citizen(metric="TemporalIoU", note="thresholds", arguments={"thresholds": [0.1, 0.9]}, draw=span_pairs),
    Citizen(metric="TemporalSetIoU", draw=span_sets, means={"miou": lambda iou: iou}),
    Citizen(
        metric="TemporalSetIoU",
        note="lists",
        arguments={"empty": 0.0, "strict": True},
        draw=listed_span_sets,
        means={"miou": lambda iou: iou},
    ),
    Citizen(metric="MomentMeanAveragePrecision", draw=moments, means={"map": lambda precision: precision}),
    Citizen(
        metric="MomentMeanAveragePrecision",
        note="ranges",
        arguments={"thresholds": [0.3, 0.5], "length_ranges": {"short": (0, 5), "long": (5, 20)}},
        draw=moments,
    ),
    Citizen(metric="TemporalIoUAUC", draw=span_sets),
    Citizen(metric="EvidenceF1", draw=span_sets, means={"f1": lambda f1: f1}),
    Citizen(metric="EvidenceF1", note="frames", draw=frames_and_clues, means={"f1": lambda f1: f1}),
    Citizen(metric="MultipleChoiceAccuracy", draw=choices, means={"accuracy": lambda right: right}),
    Citizen(metric="MultipleChoiceAccuracy", note="skip", arguments={"missing": "skip"}, draw=choices),
    Citizen(metric="OpenAnswerScore", draw=open_answers, means={"exact": lambda match: match}, validates=False),
]
