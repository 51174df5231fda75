"""Metrics of video understanding: torchmetrics classes, and the functionals that they and the rewards share.

Names are loaded at first use, so that ``m1lite.metrics.functional`` stays free of torchmetrics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m1lite.metrics.bootstrap import Estimate, bootstrap_difference, bootstrap_mean, holm
    from m1lite.metrics.caption import CaptionEvents
    from m1lite.metrics.evidence import EvidenceF1
    from m1lite.metrics.grounding import TemporalIoU
    from m1lite.metrics.grouped import GroupedMetric
    from m1lite.metrics.moments import MomentMeanAveragePrecision, TemporalIoUAUC, TemporalSetIoU
    from m1lite.metrics.open_answer import OpenAnswerScore
    from m1lite.metrics.qa import MultipleChoiceAccuracy
    from m1lite.metrics.tracking import SuccessPrecision, TrackingOverlap

_HOMES = {
    "CaptionEvents": "caption",
    "Estimate": "bootstrap",
    "EvidenceF1": "evidence",
    "GroupedMetric": "grouped",
    "MomentMeanAveragePrecision": "moments",
    "MultipleChoiceAccuracy": "qa",
    "OpenAnswerScore": "open_answer",
    "SuccessPrecision": "tracking",
    "TemporalIoU": "grounding",
    "TemporalIoUAUC": "moments",
    "TemporalSetIoU": "moments",
    "TrackingOverlap": "tracking",
    "bootstrap_difference": "bootstrap",
    "bootstrap_mean": "bootstrap",
    "holm": "bootstrap",
}

__all__ = [
    "CaptionEvents",
    "Estimate",
    "EvidenceF1",
    "GroupedMetric",
    "MomentMeanAveragePrecision",
    "MultipleChoiceAccuracy",
    "OpenAnswerScore",
    "SuccessPrecision",
    "TemporalIoU",
    "TemporalIoUAUC",
    "TemporalSetIoU",
    "TrackingOverlap",
    "bootstrap_difference",
    "bootstrap_mean",
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
