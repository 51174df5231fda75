"""The closing table of a run as plain text: scores per task, gains with intervals, seconds and tokens per stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_STAGES = ("untrained", "sft", "sft_greedy", "more_sft", "marl", "marl_greedy")
_TOKENS = ("read", "sampled", "trained")


def closing_table(metrics: Mapping[str, Any]) -> str:
    """Write the figures of ``metrics.json`` for people.

    Args:
        metrics: as ``compile_metrics`` and the stages made them, or as read back from the file.
    """
    stages = {name: metrics["stages"][name] for name in _STAGES if name in metrics["stages"]}
    tasks = sorted({task for figures in stages.values() for task in figures["team"]["tasks"]})
    parts = [_scores(metrics, stages, tasks), _agents(stages, tasks), _gains(metrics["gains"], tasks), _costs(metrics)]
    return "\n\n".join(part for part in parts if part)


def _scores(metrics: Mapping[str, Any], stages: Mapping[str, Any], tasks: Sequence[str]) -> str:
    rows = [["team score (2m - 1)", *tasks, "mean", "95 % interval", "parse", "questions"]]
    if metrics.get("blind"):
        blind = [metrics["blind"][task]["score"] if task in metrics["blind"] else None for task in tasks]
        rows.append(["best blind", *map(_signed, blind), _signed(_mean(blind)), "", "", ""])
    for name, figures in stages.items():
        team = figures["team"]
        rows.append(
            [
                name,
                *(_signed(team["tasks"][task]["mean"]) if task in team["tasks"] else "" for task in tasks),
                _signed(team["score"]["mean"]),
                _interval(team["score"]),
                f"{team['parse_share']['mean']:.3f}",
                str(team["score"]["n"]),
            ]
        )
    if metrics.get("ceiling"):
        ceiling = [metrics["ceiling"].get(task) for task in tasks]
        rows.append(["ceiling (oracle)", *map(_signed, ceiling), _signed(_mean(ceiling)), "", "", ""])
    return _aligned(rows)


def _agents(stages: Mapping[str, Any], tasks: Sequence[str]) -> str:
    if "marl" not in stages:
        return ""
    rows = [["agents after MARL", *tasks, "mean", "95 % interval", "parse"]]
    for name, figures in stages["marl"]["agents"].items():
        cells = [_signed(figures["tasks"][task]["mean"]) if task in figures["tasks"] else "" for task in tasks]
        score = figures["score"]
        rows.append([name, *cells, _signed(score["mean"]), _interval(score), f"{figures['parse_share']['mean']:.3f}"])
    return _aligned(rows)


def _gains(gains: Mapping[str, Any], tasks: Sequence[str]) -> str:
    rows = [["gain", *tasks, "mean", "95 % interval"]]
    for name, figures in gains.items():
        cells = [_signed(figures["tasks"][task]["mean"]) if task in figures["tasks"] else "" for task in tasks]
        rows.append([name, *cells, _signed(figures["mean"]), _interval(figures)])
    return _aligned(rows) if len(rows) > 1 else ""


def _costs(metrics: Mapping[str, Any]) -> str:
    seconds, cpu, tokens = metrics["seconds"], metrics["cpu_seconds"], metrics.get("token_kinds", {})
    kinds = [kind for kind in _TOKENS if any(kind in of_stage for of_stage in tokens.values())]
    rows = [["stage", "seconds", "CPU seconds", *(f"tokens {kind}" for kind in kinds)]]
    for name in seconds:
        counts = [f"{tokens[name][kind]:.0f}" if kind in tokens.get(name, {}) else "" for kind in kinds]
        rows.append([name, f"{seconds[name]:.0f}", f"{cpu[name]:.0f}", *counts])
    totals = [sum(of_stage.get(kind, 0) for of_stage in tokens.values()) for kind in kinds]
    rows.append(["all", f"{sum(seconds.values()):.0f}", f"{sum(cpu.values()):.0f}", *(f"{n:.0f}" for n in totals)])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["ci95"]
    return "" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
