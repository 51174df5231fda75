"""Official protocols of single-object tracking: GOT-10k, OTB, pytracking (LaSOT, UAV123, others), VideoChat-R1.

The toolkits' boxes are left, top, width, height in pixels. Their arithmetic per frame is in _tracking_frames.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from m1lite.metrics.functional.tracking import box_iou_sequence
from m1lite.metrics.presets._tracking_frames import (
    PyTrackingDataset,
    got10k_bounded,
    got10k_center_error,
    got10k_overlap,
    pytracking_errors,
    read_boxes,
)
from m1lite.metrics.presets.base import Preset
from m1lite.metrics.presets.r1 import blocks, read_literal, stretched_format
from m1lite.metrics.tracking import FrameErrors, SuccessPrecision, TrackingOverlap

if TYPE_CHECKING:
    from collections.abc import Callable

Item = Mapping[str, Any]

_GOT10K_BINS = (*(0.01 * step for step in range(100)), 1.0)
_NUM_BOXES = 8
"""Frames that VideoChat-R1 asks boxes for."""


def _read_got10k(item: Item) -> tuple[Any, ...]:
    """Read one sequence of the validation split.

    ``predictions``: boxes ``(T, 4)`` of one or more runs; ``target``: ``(T, 4)``; ``cover``: ``(T,)``, 0 where the
    object is absent; ``resolution``: width and height.
    """
    target = got10k_bounded(read_boxes(item["target"]), item["resolution"])
    runs = [got10k_bounded(read_boxes(run), item["resolution"]) for run in item["predictions"]]
    visible = torch.as_tensor(item["cover"]) > 0
    return runs, [target] * len(runs), [visible] * len(runs)


def _got10k_metric() -> TrackingOverlap:
    return TrackingOverlap(thresholds=_GOT10K_BINS, strict=True, overlap=got10k_overlap, validate_args=False)


def _report_got10k(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report fractions: ``ao``, ``sr`` (at 0.5) and each point of ``succ_curve``, of which 75 is SR at 0.75."""
    curve = {f"succ_curve[{step}]": float(values[f"sr@{bin_:g}"]) for step, bin_ in enumerate(_GOT10K_BINS)}
    return {"ao": float(values["ao"]), "sr": float(values["sr@0.5"]), **curve}


def _read_otb(item: Item) -> tuple[Any, ...]:
    """Read one sequence: ``prediction`` and ``target``, boxes ``(T, 4)``; the longer of the two is cut."""
    target, prediction = read_boxes(item["target"]), read_boxes(item["prediction"]).clone()
    prediction[0] = target[0]
    length = min(len(prediction), len(target))
    return [prediction[:length]], [target[:length]]


def _otb_errors(prediction: Tensor, target: Tensor) -> FrameErrors:
    """Measure as the GOT-10k toolkit does on OTB."""
    normalized = got10k_center_error(prediction, target, normalize=True)
    return FrameErrors(got10k_overlap(prediction, target), got10k_center_error(prediction, target), normalized)


def _otb_metric() -> SuccessPrecision:
    return SuccessPrecision(skip_first=False, errors=_otb_errors, validate_args=False)


def _report_otb(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report fractions, each the mean over sequences."""
    names = {"success_score": "success_auc", "precision_score": "precision", "success_rate": "success@0.5"}
    return {official: float(values[name]) for official, name in names.items()}


def _pytracking_reader(dataset: PyTrackingDataset) -> Callable[[Item], tuple[Any, ...]]:
    def read(item: Item) -> tuple[Any, ...]:
        """Read one sequence.

        ``prediction``: boxes ``(T', 4)``; ``target``: ``(T, 4)``; ``visible``: ``(T,)`` or left out.
        """
        found = pytracking_errors(item["prediction"], item["target"], visible=item.get("visible"), dataset=dataset)
        errors = torch.stack([found.overlap, found.center, found.normalized_center], -1)
        return errors[None], errors[None]

    return read


def _measured(prediction: Tensor, _: Tensor) -> FrameErrors:
    """Take errors ``(N, T, 3)`` that the reader measured in the place of boxes."""
    return FrameErrors(*prediction.unbind(-1))


def _pytracking_metric() -> SuccessPrecision:
    return SuccessPrecision(skip_first=False, errors=_measured, validate_args=False)


def _report_pytracking(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report percent, each the mean over sequences; the official numbers are these in float32."""
    names = {
        "AUC": "success_auc",
        "OP50": "success@0.5",
        "OP75": "success@0.75",
        "Precision": "precision",
        "Norm Precision": "normalized_precision",
    }
    return {official: 100 * float(values[name]) for official, name in names.items()}


def videochat_r1_boxes(text: str) -> Tensor | None:
    """Read the eight boxes of a VideoChat-R1 answer.

    The first ``<answer>`` block counts, also one inside ``<think>``. It must hold a Python list of 8 lists of 4
    numbers; corners may be reversed and outside the image.

    Args:
        text: what the model wrote.

    Returns:
        float64 ``(8, 4)``, boxes as left, top, right, bottom, in parts of the image if the model kept to the prompt;
        None for anything else, as for blocks of more than 4000 characters.

    Example:
        >>> videochat_r1_boxes(f"<answer>{[[0, 0, 0.5, 1]] * 8}</answer>")[0]
        tensor([0.0000, 0.0000, 0.5000, 1.0000], dtype=torch.float64)
        >>> videochat_r1_boxes("<answer>[[0, 0, 0.5, 1]]</answer>") is None
        True
    """
    answers = blocks(text.replace("\n", ""), "answer")
    boxes = _read_lists(answers[0]) if answers else None
    if boxes is None or not all(isinstance(number, (int, float)) for box in boxes for number in box):
        return None
    try:
        return torch.tensor([[float(number) for number in box] for box in boxes], dtype=torch.float64)
    except OverflowError:  # a whole number of more than 308 digits
        return None


def videochat_r1_tracking_reward(text: str, target: Tensor | Sequence[Any]) -> float:
    """Return VideoChat-R1's reward for boxes: their mean IoU, the given first box included; 0 where none are read.

    Args:
        text: what the model wrote.
        target: 8 true boxes as left, top, right, bottom; with another number of them the reward is 0.

    References:
        ``tracking_iou_reward`` of OpenGVLab/VideoChat-R1 73b2ea9a src/open_r1/grpo_tasks.py.

    Example:
        >>> videochat_r1_tracking_reward(f"<answer>{[[0, 0, 0.5, 1]] * 8}</answer>", [[0, 0, 1, 1]] * 8)
        0.5
    """
    boxes, trues = videochat_r1_boxes(text), read_boxes(target)
    if boxes is None or len(boxes) != len(trues):
        return 0.0
    return box_iou_sequence(boxes, trues).mean().item()


def videochat_r1_tracking_format(text: str) -> bool:
    """Say whether a text earns VideoChat-R1's format reward of the tracking task.

    It must be a ``<think>`` and an ``<answer>`` block with nothing before, between or after, where a block may hold
    further tags, and the first ``<answer>`` must hold a list of 8 lists of 4; whether of numbers isn't asked.

    Args:
        text: what the model wrote.

    Example:
        >>> videochat_r1_tracking_format(f"<think>left</think> <answer>{[[0, 0, 0.5, 1]] * 8}</answer>")
        True
        >>> videochat_r1_tracking_format(f"<answer>{[[0, 0, 0.5, 1]] * 8}</answer>")
        False
    """
    return stretched_format(text) and _read_lists(blocks(text, "answer")[0]) is not None


def _read_lists(written: str) -> list[list[Any]] | None:
    """Read a Python list of 8 lists of 4 literals."""
    found = read_literal(written.replace("\n", ""))
    if not isinstance(found, list) or len(found) != _NUM_BOXES:
        return None
    return found if all(isinstance(box, list) and len(box) == 4 for box in found) else None


def _read_videochat_r1(item: Item) -> tuple[Any, ...]:
    """Read one video: ``answer``, what the model wrote; ``target``, 8 boxes as left, top, right, bottom."""
    return [videochat_r1_boxes(item["answer"])], [read_boxes(item["target"])]


def _videochat_r1_overlap(prediction: Tensor, target: Tensor) -> Tensor:
    """IoU in which a box that is no number in part stays so; wholly NaN is no answer, and 0."""
    return box_iou_sequence(prediction, target).masked_fill(prediction.isnan().all(-1), 0.0)


def _videochat_r1_metric() -> TrackingOverlap:
    # Annotated boxes are taken as they are: an empty one scores 0.
    return TrackingOverlap(average="sequence", skip_first=False, overlap=_videochat_r1_overlap, validate_args=False)


def _report_videochat_r1(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report the fraction ``overlap``: the mean over videos of the mean over all 8 boxes, the given first included."""
    return {"overlap": float(values["ao"])}


_PYTRACKING_COMMIT = "visionml/pytracking 7eb9e74bd3d40e29dbcec444902237da13de247b"
_GOT10K_COMMIT = "got-10k/toolkit 956e7286fdf209cbb125adac9a46376bd8297ffb"

GOT10K: Preset[Item] = Preset(
    name="got10k_val",
    read=_read_got10k,
    metric=_got10k_metric,
    report=_report_got10k,
    source=f"{_GOT10K_COMMIT}, ExperimentGOT10k.report",
)
"""All frames of all runs in one mean, absent ones and the first left out; success strictly above the threshold."""

OTB: Preset[Item] = Preset(
    name="otb",
    read=_read_otb,
    metric=_otb_metric,
    report=_report_otb,
    source=f"{_GOT10K_COMMIT}, ExperimentOTB.report",
)
"""Mean over sequences; the first box is replaced by the true one and counts."""

PYTRACKING: dict[PyTrackingDataset, Preset[Item]] = {
    dataset: Preset(
        name="pytracking" if dataset == "other" else f"pytracking_{dataset}",
        read=_pytracking_reader(dataset),
        metric=_pytracking_metric,
        report=_report_pytracking,
        source=f"{_PYTRACKING_COMMIT}, pytracking/analysis, invalid frames not excluded",
    )
    for dataset in ("lasot", "uav", "other")
}
"""Mean over sequences; frames without a valid true box stay in the denominator."""

VIDEOCHAT_R1: Preset[Item] = Preset(
    name="videochat_r1_tracking",
    read=_read_videochat_r1,
    metric=_videochat_r1_metric,
    report=_report_videochat_r1,
    source="OpenGVLab/VideoChat-R1 73b2ea9ac83ad5c0bcd893bffd1cbb2e7c167068, src_eval/evaluate_track.py",
)
"""Eight boxes per video read from text; anything else scores 0."""

PRESETS: tuple[Preset[Any], ...] = (GOT10K, OTB, *PYTRACKING.values(), VIDEOCHAT_R1)
