"""Metrics of video understanding: torchmetrics classes, and the functionals that they and the rewards share.

Names are loaded at first use, so that ``m1lite.metrics.functional`` stays free of torchmetrics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m1lite.metrics.bootstrap import Estimate, bootstrap_difference, bootstrap_mean, holm
    from m1lite.metrics.caption import CaptionEvents
    from m1lite.metrics.evidence import EvidenceF1
    from m1lite.metrics.grounded_qa import ClueGroundedQA, GroundedQA
    from m1lite.metrics.grounding import TemporalIoU
    from m1lite.metrics.grouped import GroupedMetric
    from m1lite.metrics.moments import MomentMeanAveragePrecision, TemporalIoUAUC, TemporalSetIoU
    from m1lite.metrics.numbers import MeanRelativeAccuracy
    from m1lite.metrics.open_answer import OpenAnswerScore
    from m1lite.metrics.ordering import OrderAccuracy
    from m1lite.metrics.qa import MultipleChoiceAccuracy
    from m1lite.metrics.trace import Efficiency, ToolUse, TraceCounts, count_trace
    from m1lite.metrics.tracking import SuccessPrecision, TrackingOverlap

_HOMES = {
    "CaptionEvents": "caption",
    "ClueGroundedQA": "grounded_qa",
    "Efficiency": "trace",
    "Estimate": "bootstrap",
    "EvidenceF1": "evidence",
    "GroundedQA": "grounded_qa",
    "GroupedMetric": "grouped",
    "MeanRelativeAccuracy": "numbers",
    "MomentMeanAveragePrecision": "moments",
    "MultipleChoiceAccuracy": "qa",
    "OpenAnswerScore": "open_answer",
    "OrderAccuracy": "ordering",
    "SuccessPrecision": "tracking",
    "TemporalIoU": "grounding",
    "TemporalIoUAUC": "moments",
    "TemporalSetIoU": "moments",
    "ToolUse": "trace",
    "TraceCounts": "trace",
    "TrackingOverlap": "tracking",
    "bootstrap_difference": "bootstrap",
    "bootstrap_mean": "bootstrap",
    "count_trace": "trace",
    "holm": "bootstrap",
}

__all__ = [
    "CaptionEvents",
    "ClueGroundedQA",
    "Efficiency",
    "Estimate",
    "EvidenceF1",
    "GroundedQA",
    "GroupedMetric",
    "MeanRelativeAccuracy",
    "MomentMeanAveragePrecision",
    "MultipleChoiceAccuracy",
    "OpenAnswerScore",
    "OrderAccuracy",
    "SuccessPrecision",
    "TemporalIoU",
    "TemporalIoUAUC",
    "TemporalSetIoU",
    "ToolUse",
    "TraceCounts",
    "TrackingOverlap",
    "bootstrap_difference",
    "bootstrap_mean",
    "count_trace",
    "holm",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its file."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are {sorted(_HOMES)}.")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted([*globals(), *_HOMES])
