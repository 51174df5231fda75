"""Replays of caption scoring."""

from __future__ import annotations

from typing import Any

from m1lite.metrics.presets.caption import DREAM_1K, dream_f1, dream_score
from tests.golden.cells import Exclusion, Field, Row, Section, decoded

_COLUMNS = ("F1 Score", "Action Recall", "Action Precision", "Success", "Failed")
_NOT_BUILT = "scores that a language model wrote for MLVU's open answers are not read here"


def _summary(row: Row) -> list[dict[str, Any]]:
    """The preset's metric on stored scores: a share is one event that holds with that probability."""
    metric = DREAM_1K.metric()
    for item in decoded(row["items"]):
        precision, recall = ([item["precision"]], [item["recall"]]) if item["success"] else ([], None)
        metric.update([precision], [recall], [item["subtask"]])
    report = DREAM_1K.report(metric.compute())
    tasks = dict.fromkeys(name.rpartition("/")[0] for name in report)
    return [{"Task": task, **{column: report[f"{task}/{column}"] for column in _COLUMNS}} for task in tasks]


def _f1(row: Row) -> float:
    return dream_f1(float(row["recall"]), float(row["precision"]))


SECTIONS = {
    "dream_one_sample": Section(
        inputs=["n_events", "relations"],
        fields={
            "entailment_only (is_recall=True)": Field(
                replay=lambda row: dream_score(row["relations"], row["n_events"])
            ),
            "entailment_or_neutral (is_recall=False)": Field(
                replay=lambda row: dream_score(row["relations"], row["n_events"], neutral=True)
            ),
        },
    ),
    "dream_f1": Section(
        inputs=["recall", "precision"], fields={"f1": Field(replay=_f1), "f1_numpy_inputs": Field(replay=_f1)}
    ),
    "dream_summary": Section(inputs=["items"], fields={"table (3 decimals)": Field(replay=_summary)}),
    "mlvu_judge": Section(
        inputs=["judge_text"],
        fields={},
        exclusions=[
            Exclusion(field=name, reason=_NOT_BUILT)
            for name in ("mlvu_sub_scene", "mlvu_summary", "vlmevalkit_sub_scene", "vlmevalkit_summary")
        ],
    ),
}
