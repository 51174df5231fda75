"""Replays of grounded question answering: NExT-GQA, ReXTime, CG-Bench and VideoChat-R1's rewards."""

from __future__ import annotations

import json
from typing import Any

import torch

from m1lite.metrics.presets.grounded_qa import (
    CG_BENCH,
    NEXT_GQA,
    REXTIME,
    CgBenchItem,
    cgbench_choice,
    cgbench_iou,
    cgbench_spans,
    next_gqa_iop,
    next_gqa_iou,
    next_gqa_items,
    rextime_items,
)
from m1lite.metrics.presets.videochat_gqa import (
    videochat_r1_glue_iou,
    videochat_r1_gqa_answer,
    videochat_r1_gqa_format,
)
from tests.golden.cells import Exclusion, Field, Row, Section, decoded

_COPY = "another toolkit's copy of the benchmark, with rules of its own, is not built"


def _nextgqa_pair(row: Row) -> list[float]:
    span, window = (
        torch.tensor([float(row[name][0]), float(row[name][-1])], dtype=torch.float64) for name in ("pred", "gt")
    )
    return [next_gqa_iou(span, window).item(), next_gqa_iop(span, window).item()]


def _nextgqa_values(row: Row) -> dict[str, Any]:
    metric = NEXT_GQA.metric()
    for item in next_gqa_items(
        decoded(row["gt_ground"]),
        decoded(row["pred_ground"]),
        row["pred_qa"],
        gaussian_mode=row["gaussian_mode"],
        subset=row["subset"],
    ):
        metric.update(*NEXT_GQA.read(item))
    return metric.compute()


def _nextgqa_printed(row: Row) -> dict[str, float]:
    report = NEXT_GQA.report(_nextgqa_values(row))
    return {name: value for name, value in report.items() if name != "Acc@QA"}  # another script prints that


def _nextgqa_unrounded(row: Row) -> dict[str, float]:
    values = _nextgqa_values(row)
    keys = {"Acc@GQA": "acc@gqa@0.5", "mIoP": "miop", "IoP@0.3": "iop@0.3", "IoP@0.5": "iop@0.5"}
    keys |= {"mIoU": "miou", "IoU@0.3": "iou@0.3", "IoU@0.5": "iou@0.5"}
    return {official: 100 * values[key].item() for official, key in keys.items()}


def _rextime(row: Row) -> dict[str, dict[str, float]]:
    report = REXTIME.score(rextime_items(decoded(row["submission"]), decoded(row["ground_truth"])))
    brief = ("VQA", "MR-full-R1@0.3", "MR-full-R1@0.5", "MR-full-mIoU", "VQA,mIoU@0.5")
    result = {"brief": {name: report[name] for name in brief if name in report}}
    grounded = {name: value for name, value in report.items() if name.startswith("VQA,")}
    return {**result, "VQA,mIoU": grounded} if grounded else result


def _cgbench_pair(row: Row) -> float:
    spans = ([[float(bound) for bound in span] for span in row[name]] for name in ("pred", "gt"))
    return cgbench_iou(*spans)


def _cgbench_text(row: Row) -> float | int | None:
    if row["task_mode"] != "miou":
        right = cgbench_choice(row["response"], row["right_answer"])
        return None if right is None else int(right)
    spans = cgbench_spans(row["response"])
    return None if spans is None else cgbench_iou(spans, row["right_answer"])


def _cgbench_item(result: dict[str, Any]) -> CgBenchItem:
    """Write outputs whose stored results are the given ones: of one clue of a second, the IoU is what is covered."""

    def fenced(value: object) -> str:
        return "```json\n" + json.dumps({"result": value}) + "\n```"

    letters = {1: "A", 0: "B"}
    item: CgBenchItem = {"clue_intervals": [[0, 1]], "right_answer": "A"}
    if result["iou"] is not None:
        item["interval_response"] = fenced([[0, result["iou"]]])
    for name in ("long", "clue"):
        if result[f"{name}_acc"] is not None:
            item[f"{name}_response"] = fenced(letters[result[f"{name}_acc"]])
    if result["open_judge"] != "not run":
        item["open_judgement"] = result["open_judge"]
    return item


def _cgbench_table(row: Row) -> dict[str, dict[str, float]]:
    report = CG_BENCH.score(_cgbench_item(result) for result in row["items"])
    names = ("miou", "long", "clue", "rec", "acc", "open")
    return {name: {"accuracy": report[name], "total": report[f"{name}_total"]} for name in names}


SECTIONS: dict[str, Section] = {
    "nextgqa_pairs": Section(inputs=["tag", "gt", "pred"], fields={"iou_iop": Field(replay=_nextgqa_pair)}),
    "nextgqa_datasets": Section(
        inputs=["gt_ground", "pred_ground", "pred_qa", "gaussian_mode", "subset"],
        fields={
            "official_print_1_decimal": Field(replay=_nextgqa_printed),
            "more_digits": Field(replay=_nextgqa_unrounded),
        },
    ),
    "rextime": Section(inputs=["submission", "ground_truth"], fields={"result": Field(replay=_rextime)}),
    "videochat_r1_gqa": Section(
        inputs=["completion", "solution"],
        fields={
            "gqa_iou": Field(
                replay=lambda row: videochat_r1_glue_iou(row["completion"], decoded(row["solution"]["glue"]))
            ),
            "gqa_answer": Field(
                replay=lambda row: videochat_r1_gqa_answer(row["completion"], row["solution"]["answer"])
            ),
            "gqa_format": Field(replay=lambda row: videochat_r1_gqa_format(row["completion"])),
        },
    ),
    "videomind_iou": Section(
        inputs=["pred", "span", "conf"],
        fields={},
        exclusions=[
            Exclusion(field=name, reason=_COPY)
            for name in ("top1_iou_max_over_gt", "top1_iop_max_over_gt", "cgbench_top1", "cgbench_conf_thr_0.5")
        ],
    ),
    "videomind_check_ans": Section(
        inputs=["options", "ans", "response"],
        fields={},
        exclusions=[Exclusion(field="correct", reason=_COPY)],
    ),
    "interval_iou": Section(
        inputs=["tag", "pred", "gt"],
        fields={"iou": Field(replay=_cgbench_pair)},
        exclusions=[Exclusion(field="vlmevalkit", reason=_COPY)],
    ),
    "post_process": Section(
        inputs=["task_mode", "response", "right_answer"],
        fields={"official": Field(replay=_cgbench_text, core=False)},
        exclusions=[Exclusion(field="vlmevalkit", reason=_COPY)],
    ),
    "datasets": Section(
        inputs=["items"],
        fields={"official_stat_with_key (>=)": Field(replay=_cgbench_table)},
        exclusions=[Exclusion(field="vlmevalkit (>)", reason=_COPY)],
    ),
}
