"""Metrics of video understanding: torchmetrics classes, and the functionals that they and the rewards share.

Names are loaded at first use, so that ``m1lite.metrics.functional`` stays free of torchmetrics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m1lite.metrics.bootstrap import Estimate, bootstrap_difference, bootstrap_mean, holm
    from m1lite.metrics.grounding import TemporalIoU
    from m1lite.metrics.grouped import GroupedMetric
    from m1lite.metrics.qa import MultipleChoiceAccuracy

_HOMES = {
    "Estimate": "bootstrap",
    "GroupedMetric": "grouped",
    "MultipleChoiceAccuracy": "qa",
    "TemporalIoU": "grounding",
    "bootstrap_difference": "bootstrap",
    "bootstrap_mean": "bootstrap",
    "holm": "bootstrap",
}

__all__ = [
    "Estimate",
    "GroupedMetric",
    "MultipleChoiceAccuracy",
    "TemporalIoU",
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
