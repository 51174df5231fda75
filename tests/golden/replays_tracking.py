"""Replays of tracking scoring: GOT-10k toolkit, pytracking, VideoChat-R1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from m1lite.metrics.functional import box_iou_sequence
from m1lite.metrics.presets._tracking_frames import (
    PyTrackingErrors,
    got10k_bounded,
    got10k_center_error,
    got10k_overlap,
    pytracking_errors,
)
from m1lite.metrics.presets.tracking import (
    GOT10K,
    OTB,
    PYTRACKING,
    VIDEOCHAT_R1,
    videochat_r1_tracking_format,
    videochat_r1_tracking_reward,
)
from m1lite.metrics.tracking import TrackingOverlap
from tests.golden.cells import Exclusion, Field, Row, Section


def numbers(rows: Any) -> Tensor:
    """Write rows of numbers, "nan" among them, as float64."""
    return torch.tensor([[float(number) for number in row] for row in rows], dtype=torch.float64).reshape(-1, 4)


def rect_iou(row: Row) -> list[float]:
    boxes, trues = numbers(row["pred_ltwh"]), numbers(row["gt_ltwh"])
    if row.get("bound_wh") is not None:
        boxes, trues = got10k_bounded(boxes, row["bound_wh"]), got10k_bounded(trues, row["bound_wh"])
    return got10k_overlap(boxes, trues).tolist()


def rect_distance(row: Row, *, normalize: bool) -> list[float]:
    return got10k_center_error(numbers(row["pred_ltwh"]), numbers(row["gt_ltwh"]), normalize=normalize).tolist()


def of_overlaps(row: Row) -> dict[str, float]:
    """Average overlaps that are known, with the metric of the preset."""
    metric = TrackingOverlap(
        thresholds=(0.5, 0.75),
        strict=True,
        skip_first=False,
        overlap=lambda prediction, target: prediction[..., 2],
        validate_args=False,
    )
    boxes = torch.tensor([[0.0, 0.0, float(iou), 1.0] for iou in row["ious"]], dtype=torch.float64)[None]
    metric.update(boxes, boxes)
    return {name: value.item() for name, value in metric.compute().items()}


def report_of(preset: Any, sequences: list[dict[str, Any]]) -> dict[str, float]:
    """Score the sequences as stored."""
    if preset is GOT10K:
        keys = ("cover", "resolution")
        items = [{**{key: s[key] for key in keys}, "predictions": s["preds"], "target": s["gt"]} for s in sequences]
    else:
        items = [{"prediction": run, "target": s["gt"]} for s in sequences for run in s["preds"]]
    return preset.score(items)


def got10k_overall(row: Row) -> dict[str, Any]:
    found = report_of(GOT10K, row["sequences"])
    curve = [found[f"succ_curve[{step}]"] for step in range(101)]
    return {
        "ao": found["ao"],
        "sr_050": found["sr"],
        "succ_curve_at_0.50": curve[50],
        "succ_curve_at_0.75": curve[75],
        "succ_curve_mean": sum(curve) / len(curve),
        "succ_curve_every_10th": curve[::10],
    }


def got10k_each(row: Row) -> dict[str, Any]:
    found = {sequence["name"]: report_of(GOT10K, [sequence]) for sequence in row["sequences"]}
    return {name: {"ao": values["ao"], "sr_050": values["sr"]} for name, values in found.items()}


def otb_each(row: Row) -> dict[str, Any]:
    return {sequence["name"]: report_of(OTB, [sequence]) for sequence in row["sequences"]}


def pytracking(row: Row) -> PyTrackingErrors:
    dataset = row["dataset"] if row["dataset"] in PYTRACKING else "other"
    boxes, trues = numbers(row["pred_ltwh"]), numbers(row["gt_ltwh"])
    return pytracking_errors(boxes, trues, visible=row["target_visible"], dataset=dataset)


def pytracking_report(row: Row) -> dict[str, float]:
    """Merge stored curves of sequences into the metric of the preset, as another process would hand them over."""
    valid = [index for index, used in enumerate(row["valid_sequence"]) if used]
    curves = torch.tensor(row["success_curves_per_seq"], dtype=torch.float64)[valid]
    precision = torch.tensor(row["precision_at_20_per_seq"], dtype=torch.float64)[valid]
    preset = PYTRACKING["other"]
    metric = preset.metric()
    metric.merge_state(
        {
            "success": curves.sum(0),
            "precision": precision.sum(),
            "normalized_precision": torch.zeros((), dtype=torch.float64),
            "count": torch.tensor(float(len(valid)), dtype=torch.float64),
        }
    )
    return preset.report(metric.compute())


def per_box(row: Row) -> list[float]:
    boxes, trues = numbers(row["pred_xyxy"]), numbers(row["gt_xyxy"])
    # The stored list is empty where the official code stops at different lengths; so does ours.
    return box_iou_sequence(boxes, trues).tolist() if len(boxes) == len(trues) else []


def average_overlap(row: Row) -> float:
    metric = VIDEOCHAT_R1.metric()
    metric.update([numbers(row["pred_xyxy"])], [numbers(row["gt_xyxy"])])
    return VIDEOCHAT_R1.report(metric.compute())["overlap"]


def tracking_reward(row: Row) -> float:
    return videochat_r1_tracking_reward(row["completion"], numbers(row["gt_xyxy"]))


SECTIONS: dict[str, Section] = {
    "got10k_rect_iou": Section(
        inputs=["tag", "pred_ltwh", "gt_ltwh", "bound_wh"],
        fields={
            "iou": Field(replay=rect_iou),
            "center_error": Field(replay=lambda row: rect_distance(row, normalize=False)),
            "norm_center_error": Field(replay=lambda row: rect_distance(row, normalize=True)),
        },
    ),
    "got10k_evaluate": Section(
        inputs=["ious"],
        fields={
            "ao": Field(replay=lambda row: of_overlaps(row)["ao"]),
            "sr_050": Field(replay=lambda row: of_overlaps(row)["sr@0.5"]),
            "sr_075_from_succ_curve[75]": Field(replay=lambda row: of_overlaps(row)["sr@0.75"]),
        },
    ),
    "got10k_report": Section(
        inputs=["sequences"],
        fields={"overall": Field(replay=got10k_overall), "seq_wise": Field(replay=got10k_each)},
    ),
    "otb_report": Section(
        inputs=["sequences"],
        fields={
            "overall": Field(replay=lambda row: report_of(OTB, row["sequences"])),
            "seq_wise": Field(replay=otb_each),
        },
    ),
    "pytracking_seq": Section(
        inputs=["tag", "pred_ltwh", "gt_ltwh", "dataset", "target_visible"],
        fields={
            "err_overlap": Field(replay=lambda row: pytracking(row).overlap.tolist()),
            "err_center": Field(replay=lambda row: pytracking(row).center.tolist()),
            "err_center_normalized": Field(replay=lambda row: pytracking(row).normalized_center.tolist()),
            "valid": Field(replay=lambda row: pytracking(row).valid.tolist()),
        },
        exclusions=[
            Exclusion(field="error", reason="the official code raised; test_presets_tracking.py tests that ours does")
        ],
    ),
    "pytracking_curves": Section(
        inputs=["success_curves_per_seq", "precision_at_20_per_seq", "valid_sequence"],
        fields={
            # Official sums are float32, whose last digit depends on the order of adding.
            "auc_percent": Field(replay=lambda row: pytracking_report(row)["AUC"], relative=1e-6),
            "prec_percent": Field(replay=lambda row: pytracking_report(row)["Precision"], relative=1e-6),
        },
    ),
    "videochat_r1_track": Section(
        inputs=["pred_xyxy", "gt_xyxy"],
        fields={"per_box": Field(replay=per_box), "average_overlap": Field(replay=average_overlap)},
    ),
    "videochat_r1_track_reward": Section(
        inputs=["completion", "gt_xyxy"],
        fields={
            "tracking_iou_reward": Field(replay=tracking_reward),
            "tracking_format_reward": Field(replay=lambda row: float(videochat_r1_tracking_format(row["completion"]))),
        },
    ),
}
