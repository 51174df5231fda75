"""Metric functionals: tensors in, one score per sample out. They load torch and nothing else."""

from m1lite.metrics.functional.caption import EventScores, event_scores
from m1lite.metrics.functional.grounding import (
    scaled_iou,
    temporal_giou,
    temporal_iop,
    temporal_iou,
    timestamp_aware_iou,
)
from m1lite.metrics.functional.moments import moment_average_precision
from m1lite.metrics.functional.open_answer import open_answer_match
from m1lite.metrics.functional.parsing import (
    format_match,
    parse_boxes,
    parse_choice,
    parse_interval,
    parse_intervals,
    parse_number,
)
from m1lite.metrics.functional.qa import choice_match, numeric_match
from m1lite.metrics.functional.spans import SpanScores, frame_precision_recall, span_precision_recall, temporal_set_iou
from m1lite.metrics.functional.tracking import box_iou_sequence

__all__ = [
    "EventScores",
    "SpanScores",
    "box_iou_sequence",
    "choice_match",
    "event_scores",
    "format_match",
    "frame_precision_recall",
    "moment_average_precision",
    "numeric_match",
    "open_answer_match",
    "parse_boxes",
    "parse_choice",
    "parse_interval",
    "parse_intervals",
    "parse_number",
    "scaled_iou",
    "span_precision_recall",
    "temporal_giou",
    "temporal_iop",
    "temporal_iou",
    "temporal_set_iou",
    "timestamp_aware_iou",
]
