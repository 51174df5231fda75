"""Official protocols of captioning: DREAM-1K. Who judges the events (a language model) is the caller's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchmetrics.utilities import dim_zero_cat

from m1lite.metrics.caption import CaptionEvents
from m1lite.metrics.functional.caption import event_scores
from m1lite.metrics.grouped import GroupedMetric
from m1lite.metrics.presets.base import Preset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

_RELATIONS = ("entailment", "neutral", "contradiction")
_COLUMNS = ("recall", "precision", "success", "failed")


@dataclass(frozen=True, kw_only=True)
class DreamItem:
    """What the judge said of one video of DREAM-1K; None where extracting or judging its events failed."""

    true: Sequence[str] | None
    """Relation of each reference event to the caption: "entailment", "neutral" or "contradiction"."""
    predicted: Sequence[str] | None
    """Relation of each of the caption's events to the reference."""
    subtask: str = "DREAM-1K"


def dream_score(relations: Sequence[str], num_events: int, *, neutral: bool = False) -> float:
    """Share of one side's events that the judge says are entailed.

    Args:
        relations: what the judge said of each event, in any case and with blanks around it.
        num_events: events that were asked about. The official code asks about the whole text where there are none, so
            that 0 events come with one relation; they score 1.
        neutral: count "neutral" as well. The official script has this switch and leaves it off on both sides.

    Returns:
        The share in [0, 1].

    Raises:
        ValueError: if a relation is unknown, or there is not one for each event; the official code asks the judge again
            and in the end counts the sample as failed.

    References:
        bytedance/tarsier 63de87a7, evaluation/metrics/evaluate_dream_gpt.py.

    Example:
        >>> dream_score(["entailment", " Entailment ", "neutral", "contradiction"], 4)
        0.5
    """
    if len(relations) != num_events and (num_events, len(relations)) != (0, 1):
        raise ValueError(f"The judge gave {len(relations)} relations for {num_events} events; one is needed for each.")
    flags = torch.tensor(_flags(relations, neutral=neutral)[:num_events], dtype=torch.float64)
    return event_scores(flags, flags).recall.item()


def dream_f1(recall: float, precision: float) -> float:
    """F1 as DREAM-1K has it: NaN where both are 0.

    Example:
        >>> round(dream_f1(0.3, 0.7), 2), dream_f1(0.0, 0.0)
        (0.42, nan)
    """
    return 2 * recall * precision / (recall + precision) if recall + precision else math.nan


def _flags(relations: Sequence[str], *, neutral: bool = False) -> list[float]:
    read = [relation.strip().lower() for relation in relations]
    for relation in read:
        if relation not in _RELATIONS:
            raise ValueError(f"The judge gave the relation {relation!r}; there are {list(_RELATIONS)}.")
    entailed = {"entailment", "neutral"} if neutral else {"entailment"}
    return [float(relation in entailed) for relation in read]


class _DreamEvents(CaptionEvents):
    """Keeps every score: the table is rounded, and only numpy's mean over all falls on the same side of a half."""

    precisions: list[Tensor]
    recalls: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("precisions", "recalls"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        super().reset()
        for scores in (self.precisions, self.recalls):
            scores.append(torch.zeros(0, dtype=torch.float64, device=self.device))  # a process without data sends this

    def update(self, prediction: Sequence[Any], target: Sequence[Any]) -> None:
        super().update(prediction, target)
        scores = self.score(prediction, target)
        judged = ~scores.recall.isnan()
        self.precisions.append(scores.precision[judged])
        self.recalls.append(scores.recall[judged])

    def compute(self) -> dict[str, Tensor]:
        values = super().compute()
        means = {"precision": self.precisions, "recall": self.recalls}
        for name, scores in means.items():
            joined = dim_zero_cat(scores).cpu().numpy()  # one tensor already where processes were synchronised
            if len(joined):
                values[name] = torch.tensor(np.mean(joined), device=self.device)
        return {**values, "success": self.judged, "failed": self.count - self.judged}


def _read(item: DreamItem) -> tuple[list[Any], list[Any], list[str]]:
    """One judged video; a failed one leaves the means and is counted."""
    if item.true is None or item.predicted is None:
        return [[]], [None], [item.subtask]
    return [_flags(item.predicted)], [_flags(item.true)], [item.subtask]


def _report(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Give the official table as ``<row>/<column>``: three decimals, a row for each subtask with a judged video."""
    mark = "success/subtask="
    names = [key.removeprefix(mark) for key in values if key.startswith(mark) and values[key] > 0]
    groups = [[values[f"{column}/subtask={name}"].item() for column in _COLUMNS] for name in names]
    means = [float(np.mean(column)) for column in zip(*groups, strict=True)][:2] or [math.nan] * 2
    overall = [*means, values["success"].item(), values["failed"].item()]
    rows = {**dict(zip(names, groups, strict=True)), "OVERALL": overall}
    return {f"{name}/{column}": value for name, row in rows.items() for column, value in _row(*row).items()}


def _row(recall: float, precision: float, success: float, failed: float) -> dict[str, float]:
    shares = {"F1 Score": dream_f1(recall, precision), "Action Recall": recall, "Action Precision": precision}
    rounded = {column: float(np.round(value, 3)) for column, value in shares.items()}
    return {**rounded, "Success": success, "Failed": failed}


DREAM_1K = Preset[DreamItem](
    name="dream_1k",
    read=_read,
    metric=lambda: GroupedMetric(_DreamEvents(), by="subtask"),
    report=_report,
    source="bytedance/tarsier 63de87a760c2aec6b31470a08046969a13787126 evaluation/metrics/evaluate_dream_gpt.py",
)

PRESETS: tuple[Preset[Any], ...] = (DREAM_1K,)
