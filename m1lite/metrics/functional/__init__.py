"""Metric functionals: tensors in, one score per sample out. They load torch and nothing else."""

from m1lite.metrics.functional.caption import EventScores, event_scores
from m1lite.metrics.functional.grounded_qa import best_overlap, grounded_answer_score
from m1lite.metrics.functional.grounding import (
    scaled_iou,
    temporal_giou,
    temporal_iop,
    temporal_iou,
    timestamp_aware_iou,
)
from m1lite.metrics.functional.moments import moment_average_precision
from m1lite.metrics.functional.numbers import mean_relative_accuracy
from m1lite.metrics.functional.open_answer import open_answer_match
from m1lite.metrics.functional.ordering import OrderScores, order_score
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
from m1lite.metrics.functional.trace import plan_validity, tool_success
from m1lite.metrics.functional.tracking import box_iou_sequence, center_error

__all__ = [
    "EventScores",
    "OrderScores",
    "SpanScores",
    "best_overlap",
    "box_iou_sequence",
    "center_error",
    "choice_match",
    "event_scores",
    "format_match",
    "frame_precision_recall",
    "grounded_answer_score",
    "mean_relative_accuracy",
    "moment_average_precision",
    "numeric_match",
    "open_answer_match",
    "order_score",
    "parse_boxes",
    "parse_choice",
    "parse_interval",
    "parse_intervals",
    "parse_number",
    "plan_validity",
    "scaled_iou",
    "span_precision_recall",
    "temporal_giou",
    "temporal_iop",
    "temporal_iou",
    "temporal_set_iou",
    "timestamp_aware_iou",
    "tool_success",
]
