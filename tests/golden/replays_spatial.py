"""Replays of spatial scoring: VSI-Bench's graded numbers, its reading of texts, and its report."""

from __future__ import annotations

from m1lite.metrics.presets.r1 import video_r1_regression
from m1lite.metrics.presets.spatial import (
    VSI_BENCH,
    first_word,
    read_vsibench,
    vsibench_relative_accuracy,
)
from tests.golden.cells import Exclusion, Field, Row, Section

_COPY = "another toolkit's copy of the benchmark, with rules of its own, is not built"


def _official(row: Row) -> float:
    return vsibench_relative_accuracy(float(row["pred"]), float(row["target"]))


def _strict_in_float32(row: Row) -> float:
    return video_r1_regression(str(row["pred"]), str(row["target"]))


def _text_score(question_type: str, row: Row) -> float:
    item = {"question_type": question_type, "ground_truth": row["ground_truth"], "response": row["response"]}
    return read_vsibench(item)[1].item()


SECTIONS: dict[str, Section] = {
    "mra": Section(
        inputs=["tag", "pred", "target"],
        fields={
            "vsibench": Field(replay=_official),
            "video_r1_f32_strict": Field(replay=_strict_in_float32, core=False, relative=1e-6),
        },
        exclusions=[Exclusion(field="vlmevalkit", reason=_COPY)],
    ),
    "texts": Section(
        inputs=["kind", "response", "ground_truth"],
        fields={
            "fuzzy": Field(replay=lambda row: first_word(row["response"])),
            "vsibench_mra": Field(replay=lambda row: _text_score("object_counting", row)),
            "vsibench_accuracy": Field(replay=lambda row: _text_score("route_planning", row)),
        },
        exclusions=[
            Exclusion(field=name, reason=_COPY)
            for name in (
                "lmms_eval_number",
                "lmms_eval_mra",
                "lmms_eval_accuracy",
                "vlmevalkit_number",
                "vlmevalkit_option",
            )
        ],
    ),
    "datasets": Section(
        inputs=["docs"],
        fields={"vsibench_percent": Field(replay=lambda row: VSI_BENCH.score(row["docs"]))},
        exclusions=[Exclusion(field="lmms_eval_overall_fraction", reason=_COPY)],
    ),
}
