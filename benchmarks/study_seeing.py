"""What runs of `experiment=synthetic_vital` learnt: scores and calls by stage, task and length of the video.

    python benchmarks/study_seeing.py outputs/seed-0 outputs/seed-1

Differences are paired by question, and whole videos are drawn in the bootstrap (metrics/bootstrap.py).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from m1lite.metrics.bootstrap import Estimate, bootstrap_mean

STAGES = ("untrained", "sft", "sft_greedy", "marl", "marl_greedy")
SHORT, LONG = 20.0, 36.0
"""Seconds: a short video is below, a long one from there on."""


def verdicts(run: Path, durations: dict[str, float]) -> dict[str, list[dict[str, Any]]]:
    """Read what a run's evaluations wrote, with the length of each question's video."""
    found = {}
    for stage in STAGES:
        path = run / "verdicts" / f"{stage}.jsonl"
        if path.is_file():
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            found[stage] = [row | {"duration": durations[row["video"]], "score": (row["team"] + 1) / 2} for row in rows]
    return found


def durations_of(run: Path) -> dict[str, float]:
    """Ask the run's own world how long its test videos are."""
    from m1lite.build import build_data
    from m1lite.configuration import run_config

    return {sample.video: sample.duration for sample in build_data(run_config(run)).split("test")}


def estimate(rows: list[dict[str, Any]], values: list[float]) -> Estimate:
    """Return the mean of values, one a row, and its interval over videos."""
    return bootstrap_mean(values, [row["video"] for row in rows])


def shown(found: Estimate, *, sign: bool = False) -> str:
    """Write a mean and its interval."""
    form = "+.3f" if sign else ".3f"
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]"


def report(run: Path) -> list[str]:
    """Give the lines of one run's tables."""
    stages = verdicts(run, durations_of(run))
    lines = ["| stage | task | n | score | parse | calls, short | calls, long |", "|---|---|---|---|---|---|---|"]
    for stage, rows in stages.items():
        for task in sorted({row["task"] for row in rows}):
            of = [row for row in rows if row["task"] == task]
            short, long = ([r for r in of if r["duration"] < SHORT], [r for r in of if r["duration"] >= LONG])
            calls = [shown(estimate(part, [r["calls"] for r in part])) if part else "none" for part in (short, long)]
            parse = sum(next(iter(row["parsed"].values())) for row in of) / len(of)
            score = shown(estimate(of, [row["score"] for row in of]))
            lines.append(f"| {stage} | {task} | {len(of)} | {score} | {parse:.2f} | {' | '.join(calls)} |")
    lines += ["", "| difference | task | mean, 95 % interval |", "|---|---|---|"]
    for later, before in (("marl", "sft"), ("marl_greedy", "sft_greedy")):
        if later not in stages or before not in stages:
            continue
        known = {row["sample_id"]: row for row in stages[before]}
        for task in sorted({row["task"] for row in stages[later]}):
            of = [row for row in stages[later] if row["task"] == task]
            gained = estimate(of, [row["score"] - known[row["sample_id"]]["score"] for row in of])
            lines.append(f"| {later} - {before} | {task} | {shown(gained, sign=True)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    for folder in parser.parse_args().runs:
        print(f"### {folder.name}", *report(folder), "", sep="\n")
