"""Replays of what official code reads out of a text with a span or a number, and of the rewards it pays for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m1lite.metrics.presets import r1
from tests.golden.cells import Exclusion, Field, Section

if TYPE_CHECKING:
    from tests.golden.cells import Row

_OTHERS = "another toolkit's copy, which no published protocol of ours uses"


def _evaluated(row: Row) -> list[float | None]:
    found = r1.eval_interval(row["text"])
    return [None, None] if found is None else list(found)


def _rewarded(row: Row, *, ordered: bool = False) -> list[float] | None:
    found = r1.reward_interval(row["text"], ordered=ordered)
    return None if found is None else list(found)


def _longvt(row: Row) -> list[float]:
    return list(r1.longvt_time_reward(row["completion"], (1.0, 2.0)))


_FORMAT = Field(replay=lambda row: float(r1.stretched_format(row["completion"])))

SECTIONS: dict[str, Section] = {
    "text_to_interval": Section(
        inputs=["text"],
        fields={
            "time_r1_eval": Field(replay=_evaluated),
            "videochat_r1_eval": Field(replay=_evaluated),
            "time_r1_train": Field(replay=_rewarded),
            "videochat_r1_tg_train": Field(replay=lambda row: _rewarded(row, ordered=True)),
        },
        exclusions=[
            Exclusion(field=name, reason=_OTHERS)
            for name in (
                "lmms_eval_charades",
                "lmms_eval_charades_old",
                "timelens",
                "vtimellm_iou_against_0.05_0.12",
            )
        ],
    ),
    "reward_texts": Section(
        inputs=["completion"],
        fields={
            "time_r1_format": _FORMAT,
            "videochat_tg_format": _FORMAT,
            "time_r1_timestep_pair": Field(replay=lambda row: r1.time_r1_timestep_reward(row["completion"])),
            "time_r1_iou_gt_1_2": Field(replay=lambda row: r1.time_r1_iou(row["completion"], (1.0, 2.0))),
            "longvt_time_r1_total_format_iou_gt_1_2": Field(replay=_longvt),
        },
        exclusions=[
            Exclusion(field=name, reason="no recipe of ours trains with MUSEG's or TVG-R1's rewards")
            for name in (
                "museg_format_with_timestamps",
                "museg_format_without_timestamps",
                "tvg_r1_format",
                "tvg_r1_total_gt_1_2_of_10",
            )
        ],
    ),
    "texts": Section(
        inputs=["kind", "response", "ground_truth"],
        fields={
            "video_r1_choice": Field(replay=lambda row: r1.video_r1_choice(row["response"], row["ground_truth"])),
            "video_r1_numerical": Field(replay=lambda row: r1.video_r1_numerical(row["response"], row["ground_truth"])),
            "video_r1_regression": Field(
                replay=lambda row: r1.video_r1_regression(row["response"], row["ground_truth"])
            ),
        },
    ),
}
