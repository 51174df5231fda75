"""The figures of ``metrics.json``: every evaluation's scores and the differences between them, from plain verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from m1lite.evaluation import agent_scores, best_agent, gain, summary, team_scores
from m1lite.metrics.bootstrap import holm

if TYPE_CHECKING:
    from m1lite.baselines import BlindResult
    from m1lite.evaluation import Verdict

OTHER_VIDEO = "trained team, another video's results"
_PAIRS = {
    "sft_minus_untrained": ("sft", "untrained"),
    "marl_minus_sft": ("marl", "sft"),
    "marl_minus_sft_greedy": ("marl_greedy", "sft_greedy"),
    "marl_minus_more_sft": ("marl", "more_sft"),
}


def compile_metrics(
    verdicts: Mapping[str, Sequence[Verdict]], blind: Sequence[BlindResult], *, num_draws: int = 10_000
) -> dict[str, Any]:
    """Put the figures of a run together; two evaluations are compared on the questions that both played.

    Args:
        verdicts: evaluation name to its verdicts, at least one each; comparisons whose evaluations are missing are left
            out.
        blind: the best constant guesser of every task.
        num_draws: of the bootstrap over videos.

    Returns:
        ``stages``, ``gains`` and ``blind``, ready for JSON.
    """
    compared = comparisons(verdicts, blind)
    gains = {name: compared[name].gain(num_draws=num_draws) for name in compared}
    if "marl_minus_blind" in gains:
        correct_for_tasks(gains["marl_minus_blind"])
    if "team_minus_best_agent_hidden" in gains:
        gains["team_minus_best_agent_hidden"]["agent"] = best_agent(verdicts["marl_hidden_val"])
    chosen = [_best_blind(result, verdicts) for result in blind]
    return {
        "stages": {name: summary(rows, num_draws=num_draws) for name, rows in verdicts.items()},
        "gains": gains,
        "blind": {task: {"name": name, "score": _mean(scores)} for task, name, scores in chosen},
    }


@dataclass(kw_only=True, slots=True, frozen=True)
class Comparison:
    """Two scorings of the same questions; those of several runs can be put together."""

    first: dict[str, float]
    """Sample id to score."""
    second: dict[str, float]
    """Sample id to the score that is subtracted."""
    rows: list[Verdict]
    """The questions; tell their videos and tasks."""

    def gain(self, *, num_draws: int = 10_000) -> dict[str, Any]:
        """Return the mean difference and its interval, over all tasks and per task."""
        return gain(self.first, self.second, self.rows, num_draws=num_draws)


def comparisons(verdicts: Mapping[str, Sequence[Verdict]], blind: Sequence[BlindResult]) -> dict[str, Comparison]:
    """Pair up the evaluations of one run; what there is no evaluation for is left out.

    Args:
        verdicts: evaluation name to its verdicts.
        blind: the best constant guesser of every task.
    """
    found: dict[str, Comparison] = {}
    for name, (first, second) in _PAIRS.items():
        if first in verdicts and second in verdicts:
            rows = _shared(verdicts[second], verdicts[first])
            found[name] = Comparison(first=team_scores(verdicts[first]), second=team_scores(rows), rows=rows)
    if "marl" in verdicts and blind:
        parts = [_best_blind(result, verdicts)[2] for result in blind]
        scores = {sample: score for part in parts for sample, score in part.items()}
        rows = [row for row in verdicts["marl"] if row.sample_id in scores]
        found["marl_minus_blind"] = Comparison(first=team_scores(rows), second=scores, rows=rows)
    if {"marl", "marl_hidden", "marl_hidden_val"} <= verdicts.keys():
        rows = _shared(verdicts["marl_hidden"], verdicts["marl"])
        single = agent_scores(rows, best_agent(verdicts["marl_hidden_val"]))
        found["team_minus_best_agent_hidden"] = Comparison(
            first=team_scores(verdicts["marl"]), second=single, rows=rows
        )
    return found


def correct_for_tasks(figures: dict[str, Any]) -> None:
    """Add Holm's correction over tasks to a gain, in place."""
    # With one video there is no p-value, and no test to correct for.
    tested = {task: part["p_value"] for task, part in figures["tasks"].items() if part["p_value"] is not None}
    corrected = holm(tested)
    for task, part in figures["tasks"].items():
        part["p_value_holm"] = corrected.get(task)


def _shared(rows: Sequence[Verdict], others: Sequence[Verdict]) -> list[Verdict]:
    """Keep the questions that both evaluations played."""
    played = {row.sample_id for row in others}
    return [row for row in rows if row.sample_id in played]


def _best_blind(result: BlindResult, verdicts: Mapping[str, Sequence[Verdict]]) -> tuple[str, str, dict[str, float]]:
    """Choose on validation between the constant and the trained team that sees another video."""
    if {"marl_other_video", "marl_other_video_val"} <= verdicts.keys():
        held = [row.team for row in verdicts["marl_other_video_val"] if row.task == result.task]
        if held and sum(held) / len(held) > result.validation:
            rows = [row for row in verdicts["marl_other_video"] if row.task == result.task]
            return result.task, OTHER_VIDEO, team_scores(rows)
    return result.task, result.name, result.scores


def strict_json(value: Any) -> str:
    """Write figures as JSON that every reader takes: numbers that are not finite become ``null``.

    Args:
        value: mappings, lists and plain values; anything else is written as its text.

    Example:
        >>> print(strict_json({"mean": 0.5, "ci95": [float("nan"), float("inf")]}))
        {
         "mean": 0.5,
         "ci95": [
          null,
          null
         ]
        }
    """
    return json.dumps(_finite(value), indent=1, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)
