"""Replays of how official code reads options out of texts and averages what is right."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from m1lite.metrics.presets import _choice_readers as readers
from m1lite.metrics.presets import find_preset, r1
from m1lite.metrics.presets._videommmu_open import videommmu_open_right
from tests.golden.cells import Exclusion, Field, Section

if TYPE_CHECKING:
    from tests.golden.cells import Row

_OPTIONS = {"A": "a red car", "B": "two dogs", "C": "the girl", "D": "nothing", "E": "an egg", "F": "fire"}
"""Of the questions that all texts of the section "extraction" answer; two more in Video-Holmes than elsewhere."""

_OTHERS = "another toolkit's copy of a benchmark's rule"


def _option(row: Row) -> str:
    return f"({row['gt']}) {_OPTIONS[row['gt']]}"


def _videommmu(row: Row) -> str:
    letter = readers.videommmu_letter(row["response"], [_OPTIONS[letter] for letter in "ABCD"])
    return "API Error" if letter is None else letter or "No Answere Found"


def _time_r1_index(row: Row) -> int | None:
    # The scorer reads the same letter in brackets, and falls back on the first character; the index does not.
    letter = r1.time_r1_letter(row["response"])
    return ord(letter) - ord("A") if letter in ascii_uppercase and letter and f"({letter})" in row["response"] else None


def _mmr_v(row: Row) -> dict[str, Any]:
    items = [
        {
            **{key: item[key] for key in ("correctAnswer", "abilityType_L2", "videoType") if key in item},
            "raw_response": item.get("m_raw_response", ""),
            **({"final_answer": item["m_response"].get("final_answer", "")} if "m_response" in item else {}),
        }
        for item in row["items"]
    ]
    report = find_preset("mmr_v").score(items)
    tables: dict[str, Any] = {"reasoning": {}, "video_type": {}}
    for key in [key for key in report if f"{key}/count" in report]:
        cell = {
            "count": f"{report[f'{key}/correct']:.0f}/{report[f'{key}/count']:.0f}",
            "accuracy": f"{report[key]:.2f}%",
        }
        table, _, kind = key.partition("/")
        if kind:
            tables[table][kind] = cell
        else:
            tables[table] = cell
    return tables


SECTIONS: dict[str, Section] = {
    "extraction": Section(
        inputs=["response", "gt"],
        fields={
            "videomme_official": Field(replay=lambda row: readers.video_mme_letter(row["response"])),
            "mvbench_official_correct": Field(replay=lambda row: readers.mvbench_right(row["response"], _option(row))),
            "mlvu_official_correct": Field(replay=lambda row: readers.mlvu_right(row["response"], _option(row))),
            "video_holmes_official": Field(replay=lambda row: readers.video_holmes_letter(row["response"])),
            "videommmu_official": Field(replay=_videommmu),
            "mmrv_scorer": Field(replay=lambda row: readers.mmr_v_letter(row["response"])),
            "videochat_r1_AG": Field(replay=lambda row: r1.videochat_r1_letter(row["response"])),
            "time_r1_correct": Field(replay=lambda row: int(r1.time_r1_letter(row["response"]) == row["gt"])),
            "time_r1_eval_index": Field(replay=_time_r1_index, core=False),
            "video_r1_choice": Field(replay=lambda row: r1.video_r1_choice(row["response"], row["gt"])),
        },
        exclusions=[
            Exclusion(field="mmrv_last_option", reason="used while answers are collected; the scorer reads anew"),
            *(
                Exclusion(field=name, reason=_OTHERS)
                for name in (
                    "vlmevalkit_videomme",
                    "vlmevalkit_videomme_v2_AH",
                    "vlmevalkit_longvideobench_AE",
                    "vlmevalkit_can_infer",
                    "vlmevalkit_video_holmes",
                    "vlmevalkit_mvbench_correct",
                    "lmms_eval_mcq_AD",
                    "lmms_eval_mcq_AH",
                    "lmms_eval_longvideobench_seed0",
                    "lmms_eval_perceptiontest_index",
                    "lmms_eval_video_holmes_seed0",
                    "lmms_eval_mvbench_score",
                )
            ),
        ],
    ),
    "videommmu_open": Section(
        inputs=["gold", "response"],
        fields={
            "correct": Field(replay=lambda row: bool(videommmu_open_right(row["response"], row["gold"])), core=False)
        },
    ),
    "aggregation": Section(
        inputs=["benchmark", "items"],
        fields={
            "official_percent_1_decimal (unparsed answers leave the denominator)": Field(
                replay=lambda row: find_preset("video_mme").score(row["items"])
            ),
            "official_overall (empty responses leave the denominator)": Field(
                replay=lambda row: find_preset("video_mmmu").score(row["items"])["Overall"]
            ),
            "official": Field(replay=_mmr_v),
        },
        exclusions=[
            Exclusion(field=name, reason=_OTHERS)
            for name in (
                "lmms_eval_percent",
                "lmms_eval_macro_percent",
                "lmms_eval_percent (empty predictions leave the denominator)",
                "lmms_eval_overall",
                "lmms_eval_SR",
                "vlmevalkit",
                "vlmevalkit_fraction",
                "vlmevalkit_overall",
                "vlmevalkit_overall_by_duration",
                "vlmevalkit_success_total_per_task",
            )
        ],
    ),
}
