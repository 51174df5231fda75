"""Metric functionals: tensors in, one score per sample out. They load torch and nothing else."""

from m1lite.metrics.functional.caption import EventScores, event_scores
from m1lite.metrics.functional.grounding import temporal_iou
from m1lite.metrics.functional.qa import choice_match, numeric_match
from m1lite.metrics.functional.tracking import box_iou_sequence

__all__ = [
    "EventScores",
    "box_iou_sequence",
    "choice_match",
    "event_scores",
    "numeric_match",
    "temporal_iou",
]
