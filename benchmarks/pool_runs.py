"""Pools finished runs of several seeds: paired gains over all questions, clustered by video, and each seed's own.

    python -m benchmarks.pool_runs outputs/2026-01-31/12-00-00 outputs/2026-01-31/12-20-00 ... [--output FILE]

Reads the verdicts and the blind baselines that every run keeps. What is chosen on validation (the best blind guesser,
the best single agent) is chosen within each run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from m1lite.baselines import BlindResult
from m1lite.evaluation import Verdict, summary
from m1lite.report.metrics import Comparison, comparisons, correct_for_tasks
from m1lite.report.table import closing_table

TARGETS = {
    "marl_minus_sft": ">= 0.30",
    "marl_minus_sft_greedy": "> 0",
    "marl_minus_more_sft": "> 0",
    "marl_minus_blind": "> 0",
    "team_minus_best_agent_hidden": "> 0",
}


def read_run(folder: Path) -> tuple[dict[str, list[Verdict]], list[BlindResult], dict[str, Any]]:
    """Read a run's verdicts by evaluation, its blind baselines and its figures; ids are prefixed with the folder."""
    mark = f"{folder.parent.name}/{folder.name}/"
    verdicts = {
        file.stem: [
            replace(row, sample_id=mark + row.sample_id, video=mark + row.video)
            for row in (Verdict(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines())
        ]
        for file in sorted((folder / "verdicts").glob("*.jsonl"))
    }
    blind = [BlindResult(**entry) for entry in json.loads((folder / "verdicts" / "blind.json").read_text("utf-8"))]
    blind = [replace(row, scores={mark + name: score for name, score in row.scores.items()}) for row in blind]
    return verdicts, blind, json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def pool(parts: list[dict[str, Comparison]]) -> dict[str, Comparison]:
    """Put the comparisons of several runs together; one that a run lacks is left out."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {
        name: Comparison(
            first={key: score for part in parts for key, score in part[name].first.items()},
            second={key: score for part in parts for key, score in part[name].second.items()},
            rows=[row for part in parts for row in part[name].rows],
        )
        for name in names
    }


def report(folders: list[Path]) -> str:
    """Make the pooled table, one line per seed and gain, and one line per figure."""
    runs = [read_run(folder) for folder in folders]
    compared = [comparisons(verdicts, blind) for verdicts, blind, _ in runs]
    gains = {name: comparison.gain() for name, comparison in pool(compared).items()}
    correct_for_tasks(gains["marl_minus_blind"])
    stages = {
        name: summary([row for verdicts, _, _ in runs for row in verdicts[name]])
        for name in runs[0][0]
        if all(name in verdicts for verdicts, _, _ in runs)
    }

    def mean(key: str, name: str) -> float:
        return sum(figures[key][name] for _, _, figures in runs) / len(runs)

    counted = [figures for *_, figures in runs if "token_kinds" in figures]  # older runs did not count all stages

    tasks = runs[0][2]["blind"]
    pooled = {
        "stages": stages,
        "gains": gains,
        "blind": {t: {"score": sum(f["blind"][t]["score"] for *_, f in runs) / len(runs)} for t in tasks},
        "ceiling": {t: mean("ceiling", t) for t in runs[0][2]["ceiling"]},
        "seconds": {name: mean("seconds", name) for name in runs[0][2]["seconds"]},
        "cpu_seconds": {name: mean("cpu_seconds", name) for name in runs[0][2]["cpu_seconds"]},
        "token_kinds": {
            stage: {kind: sum(f["token_kinds"][stage][kind] for f in counted) / len(counted) for kind in kinds}
            for stage, kinds in (counted[0]["token_kinds"] if counted else {}).items()
        },
    }
    lines = [
        f"{len(runs)} runs pooled; seconds are means over them, tokens over the {len(counted)} that counted all.",
        "",
        closing_table(pooled),
        "",
    ]
    for name in gains:
        seeds = ", ".join(f"seed {figures['seed']} {figures['gains'][name]['mean']:+.3f}" for _, _, figures in runs)
        lines.append(f"{name}: {seeds}")
    blind = gains["marl_minus_blind"]["tasks"]
    lines.append("Holm-corrected p over tasks: " + ", ".join(f"{t} {f['p_value_holm']:.4f}" for t, f in blind.items()))
    lines.append("")
    for name, target in TARGETS.items():
        figures = gains.get(name)
        lines.append(f"figure {name} {figures['mean'] if figures else float('nan'):.3f} score target {target}")
        if figures:
            lines.append(f"figure {name}_low {figures['ci95'][0]:.3f} score target > 0")
    parsed = stages["marl"]["team"]["parse_share"]["mean"]
    lines.append(f"figure marl_parse_share {parsed:.3f} share target >= 0.95")
    change = parsed - stages["sft"]["team"]["parse_share"]["mean"]
    lines.append(f"figure marl_parse_share_minus_sft {change:.3f} share target >= -0.01")
    # The continued cold start is a control that the default run leaves out.
    seconds = max(sum(s for name, s in f["seconds"].items() if name != "more_sft") for _, _, f in runs)
    lines.append(f"figure longest_run_seconds {seconds:.0f} s target <= 600")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, print the report and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--output", type=Path, help="write the report here too")
    arguments = parser.parse_args()
    text = report([folder.resolve() for folder in arguments.runs])
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
