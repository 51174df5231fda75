"""Official protocols of grounded question answering: NExT-GQA, ReXTime and CG-Bench.

The readers of CG-Bench's texts are in _clue_readers.py. The classes of metrics/grounded_qa.py have the sane rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from m1lite.metrics.functional._inputs import as_float
from m1lite.metrics.grounded_qa import ClueGroundedQA, GroundedQA
from m1lite.metrics.presets._clue_readers import cgbench_choice, cgbench_iou, cgbench_set_iou, cgbench_spans
from m1lite.metrics.presets.base import Preset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = [
    "CG_BENCH",
    "NEXT_GQA",
    "PRESETS",
    "REXTIME",
    "CgBenchItem",
    "CgBenchScores",
    "NextGqaItem",
    "RexTimeItem",
    "cgbench_choice",
    "cgbench_iou",
    "cgbench_set_iou",
    "cgbench_spans",
    "next_gqa_iop",
    "next_gqa_iou",
    "next_gqa_items",
    "rextime_items",
]


class NextGqaItem(TypedDict):
    """One question of NExT-GQA with the model's answer."""

    windows: Sequence[Sequence[float]]
    """True spans in seconds."""
    span: Sequence[float] | None
    """Predicted span in seconds, or as shares of the video where ``duration`` is given; first and last number count."""
    duration: float | None
    """Length of the video in seconds, to make seconds of shares (rounded to 0.1); None: seconds they are."""
    right: bool | None
    """Whether the answer is right; None for no answer."""


def next_gqa_items(
    gt_ground: Mapping[str, Any],
    pred_ground: Mapping[str, Sequence[float]],
    pred_qa: Mapping[str, Mapping[str, Any]] | None,
    *,
    gaussian_mode: bool = False,
    subset: Collection[str] | None = None,
) -> Iterator[NextGqaItem]:
    """Yield an item per annotated question from the contents of the official files.

    Args:
        gt_ground: video to ``{"duration": seconds, "location": {question: windows}}``.
        pred_ground: ``"<video>_<question>"`` to the predicted span.
        pred_qa: the same keys to ``{"answer": ..., "prediction": ...}``; None without answers.
        gaussian_mode: the spans are shares of the video.
        subset: keys to keep; None for all.
    """
    for video, annotation in gt_ground.items():
        for question, windows in annotation["location"].items():
            key = f"{video}_{question}"
            if subset is not None and key not in subset:
                continue
            answers = (pred_qa or {}).get(key)
            yield {
                "windows": windows,
                "span": pred_ground.get(key),
                "duration": annotation["duration"] if gaussian_mode else None,
                "right": None if answers is None else answers["answer"] == answers["prediction"],
            }


def next_gqa_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """IoU as NExT-GQA's code has it: below 0, the further apart two spans are; 0 for a prediction without length.

    Args:
        prediction: ``(..., 2)`` in seconds.
        target: ``(..., 2)`` in seconds; broadcast against ``prediction``.

    Returns:
        ``(...)`` in [-1, 1]. The benchmark clamps it at 0 when it takes the best window.

    References:
        ``get_tIoU`` of doc-doc/NExT-GQA 63772e0 code/TempGQA/eval_ground.py.

    Example:
        >>> next_gqa_iou(torch.tensor([8.0, 9.0]), torch.tensor([2.0, 4.0]))
        tensor(-0.5714)
    """
    (start, end), (true_start, true_end) = as_float(prediction).unbind(-1), as_float(target).unbind(-1)
    hull = _greater(true_end, end) - _smaller(true_start, start)
    iou = _signed_overlap(prediction, target) / hull
    return torch.where((hull > 0) & (start != end), iou, 0.0)


def next_gqa_iop(prediction: Tensor, target: Tensor) -> Tensor:
    """IoP as NExT-GQA's code has it: negative for disjoint spans; a prediction without length inside the truth gives 1.

    Args:
        prediction: ``(..., 2)`` in seconds.
        target: ``(..., 2)`` in seconds; broadcast against ``prediction``.

    Returns:
        ``(...)``, at most 1; 0 for a reversed prediction. The benchmark clamps it at 0 when it takes the best window.

    References:
        ``get_tIoU`` of doc-doc/NExT-GQA 63772e0 code/TempGQA/eval_ground.py.

    Example:
        >>> next_gqa_iop(torch.tensor([8.0, 8.0]), torch.tensor([2.0, 8.0]))
        tensor(1.)
    """
    (start, end), (true_start, true_end) = as_float(prediction).unbind(-1), as_float(target).unbind(-1)
    iop = torch.where(end > start, _signed_overlap(prediction, target) / (end - start), 0.0)
    inside = (true_start <= start) & (start <= true_end)
    return torch.where(start == end, inside.to(iop.dtype), iop)


def _signed_overlap(prediction: Tensor, target: Tensor) -> Tensor:
    """Time that two spans share, or minus the time between them."""
    (start, end), (true_start, true_end) = as_float(prediction).unbind(-1), as_float(target).unbind(-1)
    return _smaller(true_end, end) - _greater(true_start, start)


def _smaller(first: Tensor, second: Tensor) -> Tensor:
    """Return what Python's ``min`` does: the first unless the second is below it, so that NaN depends on the order."""
    return torch.where(second < first, second, first)


def _greater(first: Tensor, second: Tensor) -> Tensor:
    """Return what Python's ``max`` does."""
    return torch.where(second > first, second, first)


def _read_next_gqa(item: NextGqaItem) -> tuple[list[Tensor | None], Tensor, list[bool | None]]:
    """Turn one item into the arguments of :meth:`GroundedQA.update`."""
    span = None
    if item["span"] is not None:
        span = torch.tensor([item["span"][0], item["span"][-1]], dtype=torch.float64)
        if item["duration"] is not None:
            # As numpy rounds to one decimal; Python's own round() goes by the exact value and differs at halves.
            span = torch.round(span * item["duration"] * 10) / 10
    windows = [(window[0], window[-1]) for window in item["windows"]]
    return [span], torch.tensor(windows, dtype=torch.float64).reshape(1, -1, 2), [item["right"]]


def _report_next_gqa(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report in percent; the official script prints one decimal."""
    keys = {
        "Acc@GQA": "acc@gqa@0.5",
        "mIoP": "miop",
        "IoP@0.3": "iop@0.3",
        "IoP@0.5": "iop@0.5",
        "mIoU": "miou",
        "IoU@0.3": "iou@0.3",
        "IoU@0.5": "iou@0.5",
        "Acc@QA": "acc@qa",
    }
    return {official: float(f"{values[key].item() * 100:.1f}") for official, key in keys.items()}


def _next_gqa_metric() -> GroundedQA:
    return GroundedQA(iop=next_gqa_iop, missing="skip", validate_args=False)


NEXT_GQA: Preset[NextGqaItem] = Preset(
    name="nextgqa",
    read=_read_next_gqa,
    metric=_next_gqa_metric,
    report=_report_next_gqa,
    source="doc-doc/NExT-GQA 63772e0256ad9e34b83d6a108f1ba2041b924607",
)
"""NExT-GQA, items from :func:`next_gqa_items`. A question without a predicted span leaves every number but Acc@QA,
which the authors take from another script over all questions of their QA split."""


class RexTimeItem(TypedDict):
    """One question of ReXTime with the model's answer."""

    windows: Sequence[Sequence[float]]
    """True spans in seconds."""
    span: Sequence[float] | None
    """Predicted span in seconds; None where the submission predicts no spans."""
    right: bool | None
    """Whether the answer is right; None where the submission holds no answers."""


def rextime_items(
    submission: Sequence[Mapping[str, Any]], ground_truth: Sequence[Mapping[str, Any]]
) -> Iterator[RexTimeItem]:
    """Yield an item per question from the lines of the official files; only the first predicted window counts.

    Raises:
        ValueError: if the two do not have the same ``qid``.
    """
    truths = {line["qid"]: line for line in ground_truth}
    predictions = {line["qid"]: line for line in submission}
    unmatched = sorted(truths.keys() ^ predictions.keys(), key=str)
    if unmatched:
        raise ValueError(
            f"`qid` {unmatched[0]!r} is in only one of submission and ground truth ({len(unmatched)} such); "
            "leave out of both what is missing in one."
        )
    for qid, line in predictions.items():
        windows = line.get("pred_relevant_windows")
        yield {
            "windows": truths[qid]["relevant_windows"],
            "span": windows[0][:2] if windows else None,
            "right": line["ans"] == truths[qid]["ans"] if "ans" in line else None,
        }


def _read_rextime(item: RexTimeItem) -> tuple[list[Sequence[float] | None], list[Sequence[Sequence[float]]], list[Any]]:
    """Turn one item into the arguments of :meth:`GroundedQA.update`."""
    return [item["span"]], [item["windows"]], [item["right"]]


_REXTIME_RECALLS = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))
_REXTIME_ANSWERS = (0.3, 0.5, 0.7)


def _rextime_metric() -> GroundedQA:
    return GroundedQA(
        thresholds=_REXTIME_RECALLS,
        answer_thresholds=_REXTIME_ANSWERS,
        answer_overlap="iou",
        missing="skip",
        validate_args=False,
    )


def _report_rextime(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report spans in percent to two decimals, answers as fractions; what was not submitted is left out."""
    answered, located = bool(values["answered"] > 0), bool(values["located"] > 0)
    report = {}
    if located:
        report["MR-full-mIoU"] = float(f"{values['miou'].item() * 100:.2f}")
        for threshold in _REXTIME_RECALLS:
            report[f"MR-full-R1@{threshold}"] = float(f"{values[f'iou@{threshold:g}'].item() * 100:.2f}")
    if answered:
        report["VQA"] = values["acc@qa"].item()
    if answered and located:
        report |= {f"VQA,mIoU@{threshold}": values[f"acc@gqa@{threshold:g}"].item() for threshold in _REXTIME_ANSWERS}
    return report


REXTIME: Preset[RexTimeItem] = Preset(
    name="rextime",
    read=_read_rextime,
    metric=_rextime_metric,
    report=_report_rextime,
    source="ReXTime/ReXTime cb9f484110ef45299635d18626d5f8447f29f15d",
)
"""ReXTime, items from :func:`rextime_items`. A submission has spans, answers or both for all questions."""


class CgBenchItem(TypedDict, total=False):
    """One question of CG-Bench with the model's outputs; a run that was not made is left out, or None."""

    clue_intervals: Sequence[Sequence[float]]
    """True spans in seconds. Required."""
    right_answer: str
    """Letter of the right option. Required."""
    interval_response: str | None
    """Output when asked for the clue spans."""
    long_response: str | None
    """Output when asked for the option, with the whole video."""
    clue_response: str | None
    """Output when asked for the option, with the clues alone."""
    open_judgement: int | None
    """What the judge says of the open answer, 1 for right; None: not judged. Leave out without an open answer."""


_CGBENCH_TOTALS = ("total_miou", "total_rec", "total_acc", "total_long", "total_clue")


class CgBenchScores(ClueGroundedQA):
    """:class:`~m1lite.metrics.ClueGroundedQA` as CG-Bench has it, with judged open answers and how many were counted.

    ``update`` also takes ``judged``, 1 or 0 for every open answer, ``None`` where it is not judged, and ``asked``,
    whether there is one. ``compute`` adds ``open``, the share of judged answers that are right, and ``total_miou``,
    ``total_rec``, ``total_acc``, ``total_long``, ``total_clue`` and ``total_open``, how many questions each is about.
    """

    open_right: Tensor
    open_judged: Tensor
    open_count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(missing="skip", overlap=cgbench_set_iou, validate_args=False, **kwargs)
        self.add_sums("open_right", "open_judged", "open_count")

    def update(  # type: ignore[override]
        self,
        prediction: Sequence[Any],
        target: Sequence[Any],
        right: Sequence[bool | None],
        clue_right: Sequence[bool | None],
        judged: Sequence[int | None],
        asked: Sequence[bool],
    ) -> None:
        """Add questions."""
        super().update(prediction, target, right, clue_right)
        self.open_right += sum(judgement == 1 for judgement in judged)
        self.open_judged += sum(judgement is not None for judgement in judged)
        self.open_count += sum(asked)

    def compute(self) -> dict[str, Tensor]:
        """Return the values of :class:`~m1lite.metrics.ClueGroundedQA`, ``open`` and the totals."""
        totals = dict(zip(_CGBENCH_TOTALS, self.counts.clone(), strict=True))
        return {
            **super().compute(),
            "open": self.ratio(self.open_right, self.open_judged),
            **totals,
            "total_open": self.open_count.clone(),
        }


def _read_cgbench(item: CgBenchItem) -> tuple[list[Any], ...]:
    """Turn one item into the arguments of :meth:`CgBenchScores.update`."""
    right_answer = item["right_answer"]
    return (
        [cgbench_spans(item.get("interval_response"))],
        [item["clue_intervals"]],
        [cgbench_choice(item.get("long_response"), right_answer)],
        [cgbench_choice(item.get("clue_response"), right_answer)],
        [item.get("open_judgement")],
        ["open_judgement" in item],
    )


def _report_cgbench(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Report fractions, 0 where nothing was counted, each with its total; the script does not round."""
    keys = {"miou": "miou", "long": "acc@long", "clue": "acc@clue", "rec": "rec@iou", "acc": "acc@iou", "open": "open"}
    report = {}
    for official, key in keys.items():
        report[official] = values[key].nan_to_num(0.0).item()
        report[f"{official}_total"] = values[f"total_{official}"].item()
    return {**report, "CRR": values["crr"].item()}


CG_BENCH: Preset[CgBenchItem] = Preset(
    name="cgbench",
    read=_read_cgbench,
    metric=CgBenchScores,
    report=_report_cgbench,
    source="CG-Bench/CG-Bench f826608752443a13b21f214c2d9c4156c526f030",
)
"""CG-Bench. What can't be read has no result and leaves the denominators; a text without any number counts as IoU 0.
CRR is the paper's formula; the script does not print it."""

PRESETS: tuple[Preset[Any], ...] = (NEXT_GQA, REXTIME, CG_BENCH)
