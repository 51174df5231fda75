"""Official protocols of temporal grounding: Charades-STA as VideoChat-R1 and Time-R1 score it, QVHighlights, VUE-TR.

What their scripts do to spans beyond the library's own functions (spans that cover negative time, sums of overlaps that
count twice) is in _spans_official.py; how the R1 family reads text, in r1.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from m1lite.metrics._base import VideoMetric
from m1lite.metrics.grounding import TemporalIoU
from m1lite.metrics.moments import MomentMeanAveragePrecision, TemporalIoUAUC
from m1lite.metrics.presets._spans_official import (
    moment_detr_overlap,
    vue_tr_overlap,
    vue_tr_v2_overlap,
)
from m1lite.metrics.presets.base import Preset
from m1lite.metrics.presets.r1 import eval_interval

Span = Sequence[float]
"""Start and end in seconds."""

_QVHIGHLIGHTS_RANGES = {"short": (0, 10), "middle": (10, 30), "long": (30, 150)}
_QVHIGHLIGHTS_THRESHOLDS = ("0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8", "0.85", "0.9", "0.95")


class GroundingItem(TypedDict):
    """One query with one true span."""

    response: str
    """The model's whole output."""
    target: Span


class MomentsItem(TypedDict):
    """One query of QVHighlights."""

    pred_relevant_windows: Sequence[Sequence[float]]
    """Start, end and confidence of every predicted moment, best first."""
    relevant_windows: Sequence[Span]
    """The true moments."""


class RetrievalItem(TypedDict):
    """One query of VUE-TR."""

    answer: Sequence[Span]
    """Predicted spans; ``[]`` or ``[[]]`` for none."""
    gt: Sequence[Span]
    """True spans, in the order of the file; may be none."""


def read_grounding(item: GroundingItem) -> tuple[Any, ...]:
    """Read a :class:`GroundingItem` as the evaluation of VideoChat-R1 and Time-R1 does."""
    return [eval_interval(item["response"])], _as_spans([item["target"]])


def report_videochat_r1(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Give fractions under the names that VideoChat-R1's script prints."""
    recalls = {f"R@{threshold}": values[f"recall@{threshold}"].item() for threshold in ("0.3", "0.5", "0.7")}
    return {"mIoU": values["miou"].item(), **recalls}


def report_time_r1(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Give percentages under the names of Time-R1's script; ``avg`` is the mean of the four."""
    recalls = {threshold: 100 * values[f"recall@{threshold}"].item() for threshold in ("0.3", "0.5", "0.7")}
    scores = {"mIoU": 100 * values["miou"].item(), **recalls}
    return {**scores, "avg": sum(scores.values()) / len(scores)}


def read_moments(item: MomentsItem) -> tuple[Any, ...]:
    """Read a :class:`MomentsItem`; an empty list of moments is no answer."""
    moments = item["pred_relevant_windows"]
    return [_as_spans(moments, width=3) if moments else None], [_as_spans(item["relevant_windows"])]


def qvhighlights_metric() -> VideoMetric:
    """Make the metric of QVHighlights: three ranges of lengths beside all, without queries that have no moments."""
    return MomentMeanAveragePrecision(
        length_ranges=_QVHIGHLIGHTS_RANGES, missing="skip", overlap=moment_detr_overlap, validate_args=False
    )


def report_qvhighlights(values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Give the official percentages with two decimals: per range of lengths MR-mAP and MR-R1, and ``brief``."""
    scores: dict[str, Any] = {}
    for name in (*_QVHIGHLIGHTS_RANGES, "full"):
        prefix = "" if name == "full" else f"{name}/"
        precision = {key: values[f"{prefix}map@{key}"].item() for key in _QVHIGHLIGHTS_THRESHOLDS}
        # The mean of numpy, whose last bits decide how a value such as 54.375 is rounded.
        precision["average"] = float(np.mean(list(precision.values())))
        recall = {key: values[f"{prefix}recall@{key}"].item() for key in _QVHIGHLIGHTS_THRESHOLDS}
        scores[name] = {"MR-mAP": _percent(precision), "MR-R1": _percent(recall)}
    full = scores["full"]
    scores["brief"] = {
        "MR-full-mAP": full["MR-mAP"]["average"],
        "MR-full-mAP@0.5": full["MR-mAP"]["0.5"],
        "MR-full-mAP@0.75": full["MR-mAP"]["0.75"],
        "MR-full-R1@0.5": full["MR-R1"]["0.5"],
        "MR-full-R1@0.7": full["MR-R1"]["0.7"],
        **{f"MR-{name}-mAP": scores[name]["MR-mAP"]["average"] for name in _QVHIGHLIGHTS_RANGES},
    }
    return scores


def read_retrieval(item: RetrievalItem) -> tuple[Any, ...]:
    """Read a :class:`RetrievalItem`: predicted spans are first widened to whole seconds."""
    answer = _as_spans([span for span in item["answer"] if len(span)])
    return [torch.stack([answer[:, 0].floor(), answer[:, 1].ceil()], dim=-1)], [_as_spans(item["gt"])]


def vue_tr_metric() -> VideoMetric:
    """Make the metric of VUE-TR."""
    return TemporalIoUAUC(overlap=vue_tr_overlap, strict=True, validate_args=False)


def vue_tr_v2_metric() -> VideoMetric:
    """Make the metric of VUE-TR-V2, which counts an empty answer where nothing is to be found as precise."""
    return TemporalIoUAUC(overlap=vue_tr_v2_overlap, strict=True, validate_args=False)


def report_vue_tr(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Give the percentages of VUE-TR, with one decimal; its "IoU" is the area, not the mean."""
    return _report_areas(values, decimals=1)


def report_vue_tr_v2(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Give the percentages of VUE-TR-V2, with two decimals; its "IoU" is the area, not the mean."""
    return _report_areas(values, decimals=2)


def _report_areas(values: Mapping[str, Tensor], *, decimals: int) -> dict[str, float]:
    names = {"Precision": "precision_auc", "Recall": "recall_auc", "IoU": "iou_auc"}
    return {name: float(f"{100 * values[key].item():.{decimals}f}") for name, key in names.items()}


def _as_spans(spans: Sequence[Sequence[float]], *, width: int = 2) -> Tensor:
    """Write spans as float64 ``(spans, width)``, the precision of the official scripts."""
    return torch.tensor(spans, dtype=torch.float64).reshape(-1, width)


def _percent(fractions: Mapping[str, float]) -> dict[str, float]:
    """Percentages with two decimals, cut as the official script formats them."""
    return {key: float(f"{100 * value:.2f}") for key, value in fractions.items()}


PRESETS: tuple[Preset[Any], ...] = (
    Preset(
        name="videochat_r1_grounding",
        read=read_grounding,
        metric=TemporalIoU,
        report=report_videochat_r1,
        source="OpenGVLab/VideoChat-R1 73b2ea9a src_eval/evaluate_grounding.py; a query whose video cannot be read, "
        "which it drops, must not be passed in",
    ),
    Preset(
        name="time_r1",
        read=read_grounding,
        metric=lambda: TemporalIoU(strict=True),
        report=report_time_r1,
        source="xiaomi-research/time-r1 7f2b5944 src/vllm_inference/eval_all.py; where both spans are the same point "
        "its mean becomes NaN, here the IoU is 0",
    ),
    Preset(
        name="qvhighlights",
        read=read_moments,
        metric=qvhighlights_metric,
        report=report_qvhighlights,
        source="jayleicn/moment_detr b7e553ac standalone_eval/eval.py; it fails on a query without moments for MR-R1, "
        "here that leaves MR-R1 as it leaves MR-mAP",
    ),
    Preset(
        name="vue_tr",
        read=read_retrieval,
        metric=vue_tr_metric,
        report=report_vue_tr,
        source="bytedance/vidi fc30c870 VUE_TR/qa_eval.py",
    ),
    Preset(
        name="vue_tr_v2",
        read=read_retrieval,
        metric=vue_tr_v2_metric,
        report=report_vue_tr_v2,
        source="bytedance/vidi fc30c870 VUE_TR_V2/qa_eval.py",
    ),
)
