"""What the shared test of the metric classes runs over: every exported class with arguments and a way to draw samples.

To add a class: write a function that draws a batch (or take one that is here) and append a :class:`Citizen`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
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


def event_flags(count: int, generator: torch.Generator) -> Batch:
    """Flags of one to four events on either side; some not judged, some without answer, one side soft."""
    told = [uniform(generator, size) for size in whole(generator, 1, 5, count).tolist()]
    true = [uniform(generator, size) < 0.5 for size in whole(generator, 1, 5, count).tolist()]
    odd = whole(generator, 0, 6, count).tolist()
    return {
        "prediction": [None if index == 0 else flags for index, flags in zip(odd, told, strict=True)],
        "target": [None if index == 1 else flags for index, flags in zip(odd, true, strict=True)],
    }


def judge_events(told: str, true: str) -> tuple[list[bool], list[bool]] | None:
    """Judge for captions whose events are letters; fails where they tell the same."""
    return None if told == true else ([event in true for event in told], [event in told for event in true])


def captions(count: int, generator: torch.Generator) -> Batch:
    letters = [["".join("abcd"[index] for index in row) for row in whole(generator, 0, 4, count, 3)] for _ in range(2)]
    return {"prediction": letters[0], "target": letters[1]}


def padded_orders(count: int, generator: torch.Generator) -> Batch:
    """Orders of four items, in the prediction with repeated and missing ones."""
    target = uniform(generator, count, 4).argsort(-1)
    return {"prediction": whole(generator, -1, 5, count, 5), "target": target}


def listed_orders(count: int, generator: torch.Generator) -> Batch:
    sizes = whole(generator, 1, 6, count).tolist()
    told, true = ([uniform(generator, size).argsort().tolist() for size in sizes] for _ in range(2))
    skipped = (uniform(generator, count) < 0.3).tolist()
    return {"prediction": [None if skip else order for skip, order in zip(skipped, told, strict=True)], "target": true}


def traces(count: int, generator: torch.Generator) -> Batch:
    rows = whole(generator, 0, 9, count, 4).tolist()
    counts = [
        metrics.TraceCounts(
            plans=plans + 1, valid_plans=plans, tool_calls=calls + 2, successful_calls=calls, turns=1, frames=frames,
            pixels=64 * frames, input_tokens=100 * plans, output_tokens=calls, seconds=seconds / 7 if seconds else None,
        )
        for plans, calls, frames, seconds in rows
    ]  # fmt: skip
    return {"traces": counts}


def draw_boxes(generator: torch.Generator, *shape: int) -> Tensor:
    """Boxes as left, top, right, bottom in pixels ``(*shape, 4)``, wide enough to overlap now and then."""
    corner = 40 * uniform(generator, *shape, 2)
    return torch.cat([corner, corner + 1 + 40 * uniform(generator, *shape, 2)], dim=-1)


def tracks(count: int, generator: torch.Generator) -> Batch:
    """Sequences of five frames; the object is gone in some, and the tracker silent in some."""
    silent = uniform(generator, count, 5, 1) < 0.2
    return {
        "prediction": draw_boxes(generator, count, 5).masked_fill(silent, float("nan")),
        "target": draw_boxes(generator, count, 5),
        "mask": uniform(generator, count, 5) < 0.8,
    }


def labelled_tracks(count: int, generator: torch.Generator) -> Batch:
    return {**tracks(count, generator), "labels": torch.arange(count) % 3}


def listed_tracks(count: int, generator: torch.Generator) -> Batch:
    """Sequences of different length, some without answer."""
    lengths, skipped = whole(generator, 2, 6, count).tolist(), (uniform(generator, count) < 0.3).tolist()
    told, true = ([draw_boxes(generator, length) for length in lengths] for _ in range(2))
    return {"prediction": [None if skip else boxes for skip, boxes in zip(skipped, told, strict=True)], "target": true}


def one_span_and_answer(count: int, generator: torch.Generator) -> Batch:
    return {**span_pairs(count, generator), "right": whole(generator, 0, 2, count)}


def listed_spans_and_answers(count: int, generator: torch.Generator) -> Batch:
    """One span or none, one to three true ones, and answers that are right, wrong or missing."""
    spans, skipped = draw_spans(count, generator).tolist(), (uniform(generator, count) < 0.3).tolist()
    return {
        "prediction": [None if skip else span for skip, span in zip(skipped, spans, strict=True)],
        "target": [draw_spans(size, generator) for size in whole(generator, 1, 4, count).tolist()],
        "right": [(0, 1, None)[index] for index in whole(generator, 0, 3, count)],
    }


def clues(count: int, generator: torch.Generator) -> Batch:
    flags = {name: whole(generator, 0, 2, count) for name in ("right", "clue_right")}
    return {**span_sets(count, generator), **flags}


def numbers(count: int, generator: torch.Generator) -> Batch:
    target = 1 + 9 * uniform(generator, count)
    prediction = target * (0.6 + uniform(generator, count))
    return {"prediction": prediction.masked_fill(uniform(generator, count) < 0.2, float("nan")), "target": target}


def grouped_spans(count: int, generator: torch.Generator) -> Batch:
    """Spans with the lengths of their videos; a part of every batch is in each group."""
    start = int(whole(generator, 0, 3, 1))
    labels = [("short", "medium", "long")[(start + index) % 3] for index in range(count)]
    return {**span_pairs(count, generator), "length": labels}


_SCORES_OF_GROUNDED_ANSWERS = {
    name: partial(lambda scores, key: scores[key], key=name)
    for name in ("acc@qa", "acc@gqa@0.5", "miop", "iou@0.3", "answered", "located")
}
_SCORES_OF_CLUES = {
    name: partial(lambda scores, key: scores[key], key=name) for name in ("miou", "rec@iou", "acc@iou", "acc@clue")
}
_SCORES_OF_ORDERS = {
    "exact": lambda scores: scores.exact,
    "step_accuracy": lambda scores: scores.step_accuracy,
    "kendall_tau": lambda scores: scores.kendall_tau,
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
    Citizen(metric="MeanRelativeAccuracy", draw=numbers, means={"mra": lambda accuracy: accuracy}),
    Citizen(metric="GroundedQA", draw=one_span_and_answer, means=_SCORES_OF_GROUNDED_ANSWERS),
    Citizen(metric="GroundedQA", note="lists", draw=listed_spans_and_answers, means=_SCORES_OF_GROUNDED_ANSWERS),
    Citizen(metric="GroundedQA", note="skip", arguments={"missing": "skip"}, draw=listed_spans_and_answers),
    Citizen(metric="ClueGroundedQA", draw=clues, means=_SCORES_OF_CLUES),
    Citizen(metric="TrackingOverlap", draw=tracks),
    Citizen(
        metric="TrackingOverlap",
        note="sequence",
        arguments={"average": "sequence"},
        draw=listed_tracks,
        means={"ao": lambda overlap: overlap},
    ),
    Citizen(
        metric="TrackingOverlap",
        note="class",
        arguments={"average": "class", "num_classes": 4, "strict": True},
        draw=labelled_tracks,
    ),
    Citizen(metric="SuccessPrecision", draw=tracks, means={"success_auc": lambda auc: auc[~auc.isnan()]}),
    Citizen(metric="SuccessPrecision", note="lists", arguments={"skip_first": False}, draw=listed_tracks),
    Citizen(
        metric="CaptionEvents",
        draw=event_flags,
        means={
            "precision": lambda scores: scores.precision[~scores.precision.isnan()],
            "recall": lambda scores: scores.recall[~scores.recall.isnan()],
        },
    ),
    Citizen(metric="CaptionEvents", note="judge", arguments={"judge": judge_events}, draw=captions),
    Citizen(metric="OrderAccuracy", draw=padded_orders, means=_SCORES_OF_ORDERS),
    Citizen(metric="OrderAccuracy", note="lists", draw=listed_orders, means=_SCORES_OF_ORDERS),
    Citizen(metric="ToolUse", draw=traces, validates=False),
    Citizen(
        metric="Efficiency",
        draw=traces,
        means={
            "frames": lambda scores: scores["frames"],
            "seconds": lambda scores: scores["seconds"][~scores["seconds"].isnan()],
        },
        validates=False,
    ),
    Citizen(
        metric="GroupedMetric",
        arguments={"metric": metrics.TemporalIoU(), "by": "length"},
        draw=grouped_spans,
        validates=False,
    ),
]
