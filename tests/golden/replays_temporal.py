"""Replays of temporal grounding: one span, sets of spans, ranked moments, areas under curves."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from m1lite.metrics.functional import temporal_iou, timestamp_aware_iou
from m1lite.metrics.grounding import TemporalIoU
from m1lite.metrics.presets import _spans_official as official
from m1lite.metrics.presets import find_preset
from m1lite.metrics.presets.r1 import reward_interval, time_r1_iou
from tests.golden.cells import Exclusion, Field, Row, Section, decoded

OTHER_TOOLKIT = "another toolkit's own rule, which this library does not have"


def numbers(values):
    """Floats from JSON, in which nan and inf are strings, as a float64 tensor."""
    return torch.tensor([[float(bound) for bound in row] for row in values], dtype=torch.float64).reshape(-1, 2)


def of_pair(function, row: Row) -> float:
    return function(numbers([row["pred"]])[0], numbers([row["gt"]])[0]).item()


def of_sets(function, row: Row) -> Any:
    return function(numbers(row["pred"]).tolist(), numbers(row["gt"]).tolist())


def videochat_pair_as_sets(row: Row) -> float:
    return of_sets(official.videochat_r1_set_iou, {"pred": [row["pred"]], "gt": [row["gt"]]})


def true_span(row: Row) -> tuple[float, float]:
    return tuple(float(bound) for bound in row["gt"])


def timestamp_aware_reward(row: Row) -> float:
    pair = reward_interval(row["reward_text"])
    if pair is None:
        return 0.0
    duration = torch.tensor(float(row["duration"]), dtype=torch.float64)  # not checked, unlike a number
    return timestamp_aware_iou(*numbers([pair, row["gt"]]), duration).item()


def recalls(row: Row, *, strict: bool) -> dict[str, float]:
    """Values of TemporalIoU on spans that have the given IoUs with one second."""
    metric = TemporalIoU(strict=strict)
    spans = numbers([[0.0, iou] for iou in row["ious"]])
    metric.update(spans, numbers([[0.0, 1.0]]).expand_as(spans))
    return metric.compute()


def qvhighlights(row: Row) -> dict[str, Any]:
    preset = find_preset("qvhighlights")
    metric = preset.metric()
    truth = {item["qid"]: item["relevant_windows"] for item in decoded(row["ground_truth"])}
    for item in decoded(row["submission"]):
        metric.update(*preset.read({**item, "relevant_windows": truth[item["qid"]]}))
    scores = preset.report(metric.compute())
    result: dict[str, Any] = {}
    for name, count in zip(("full", "short", "middle", "long"), metric.count.tolist(), strict=True):
        result[name] = {"n": int(count)}
        if count:
            shown = ("0.5", "0.7", "0.75", "0.95")
            precision = scores[name]["MR-mAP"]
            result[name]["MR-mAP"] = {key: precision[key] for key in (*shown, "average")}
            result[name]["MR-R1"] = {key: scores[name]["MR-R1"][key] for key in shown}
    return result


def vue_tr_iou(row: Row) -> float:
    return official.vue_tr_overlap(numbers(row["pred"])[None], numbers(row["gt"])[None])[0].item()


def vue_tr_shares(overlap, row: Row) -> list[list[float]]:
    """Precision and recall of one sample, as the lists that go into the two means."""
    _, *shares = overlap(numbers(row["pred"])[None], numbers(row["gt"])[None])
    return [[share.item()] if not math.isnan(share.item()) else [] for share in shares]


def vue_tr_dataset(name: str, row: Row) -> dict[str, Any]:
    preset = find_preset(name)
    metric = preset.metric()
    truth = {item["query_id"]: item["gt"] for item in decoded(row["ground_truth"])}
    answers, ious = [], []
    for item in decoded(row["predictions"]):
        answer, target = preset.read({"answer": item["answer"], "gt": truth[item["query_id"]]})
        metric.update(answer, target)
        answers.append(answer[0].tolist())
        ious.append(metric.score(answer, target)[0, 0].item())
    areas = {key: value.item() for key, value in metric.compute().items()}
    return {**areas, "per_query_iou": ious, "rounded_answers": answers}


SECTIONS: dict[str, Section] = {
    "interval_pairs": Section(
        inputs=["tag", "pred", "gt", "duration", "reward_text"],
        fields={
            "lmms_eval_charades_iou": Field(replay=partial(of_pair, temporal_iou)),
            "timechat_iou": Field(replay=partial(of_pair, temporal_iou)),
            "time_r1_compute_IoU": Field(replay=partial(of_pair, official.time_r1_pair_iou)),
            "qvh_iou_paired": Field(replay=partial(of_pair, temporal_iou)),
            "qvh_iou_cross": Field(replay=partial(of_pair, official.moment_detr_cross_iou)),
            "nncore_temporal_iou_f32": Field(
                replay=partial(of_pair, official.moment_detr_cross_iou), core=False, relative=1e-5, absolute=1e-5
            ),
            "videochat_set_iou": Field(replay=videochat_pair_as_sets),
            "time_r1_iou_reward": Field(replay=lambda row: time_r1_iou(row["reward_text"], true_span(row))),
            "time_r1_iou_v2_reward": Field(replay=timestamp_aware_reward),
            "videochat_tg_iou_reward": Field(
                replay=lambda row: official.videochat_r1_grounding_reward(row["reward_text"], true_span(row))
            ),
            # Its script of several tasks reads and scores as Time-R1 does.
            "videochat_tasks_iou_reward": Field(replay=lambda row: time_r1_iou(row["reward_text"], true_span(row))),
        },
    ),
    "iou_sets": Section(
        inputs=["ious"],
        fields={
            "time_r1_calc_score (strict >)": Field(
                replay=lambda row: find_preset("time_r1").report(recalls(row, strict=True))
            ),
            "vtimellm_grounding_metrics (>=)": Field(
                replay=lambda row: {
                    name: 100 * recalls(row, strict=False)[key].item()
                    for name, key in [("mIoU", "miou"), *((f"R1@{t}", f"recall@{t}") for t in (0.3, 0.5, 0.7))]
                }
            ),
        },
    ),
    "qvhighlights": Section(
        inputs=["submission", "ground_truth"],
        fields={"result": Field(replay=qvhighlights)},
    ),
    "multi_span": Section(
        inputs=["tag", "pred", "gt"],
        fields={
            "vue_tr_overlap_ratio": Field(replay=vue_tr_iou),
            "vue_tr_precision_recall": Field(replay=partial(vue_tr_shares, official.vue_tr_overlap)),
            "vue_tr_v2_precision_recall": Field(replay=partial(vue_tr_shares, official.vue_tr_v2_overlap)),
            "videochat_set_iou": Field(replay=partial(of_sets, official.videochat_r1_set_iou)),
        },
        exclusions=[
            Exclusion(field=f"museg_reward_{name}_matching", reason=OTHER_TOOLKIT)
            for name in ("global", "local", "segment")
        ],
    ),
    "vue_tr_datasets": Section(
        inputs=["ground_truth", "predictions"],
        fields={name: Field(replay=partial(vue_tr_dataset, name)) for name in ("vue_tr", "vue_tr_v2")},
    ),
    "museg_eval": Section(
        inputs=["gt_and_output"],
        fields={},
        exclusions=[Exclusion(field=name, reason=OTHER_TOOLKIT) for name in ("tvg", "tal")],
    ),
    "datasets": Section(
        inputs=["items"],
        fields={},
        exclusions=[
            Exclusion(field=name, reason="needs that toolkit's reader of answers, which this library does not have")
            for name in ("lmms_eval_charades", "timelens")
        ],
    ),
}
