"""Episodes to named numbers for the log. No logging here, see ``rollout.py``."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from m1lite.records import Status
from m1lite.rewards.compose import term_stats
from m1lite.rewards.scoring import score_answers
from m1lite.rl.advantages import reward_stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from m1lite.records import Episode, Trajectory
    from m1lite.rewards.compose import Breakdown

_FAILED = (Status.TOOL_ERROR, Status.TOOL_TIMEOUT)


def team_rewards(episodes: Sequence[Episode]) -> list[float]:
    """Score the team's answer of each episode: 2 m - 1 in [-1, 1], m by the metric of its task."""
    scores = score_answers([episode.sample for episode in episodes], [episode.answer for episode in episodes])
    return [2 * score - 1 for score in scores]


def trajectory_stats(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Summarise what an agent wrote and called.

    Args:
        trajectories: of one agent, at least one.

    Returns:
        ``completions/mean_length`` (sampled tokens of a trajectory), ``completions/clipped_ratio`` (share of turns that
        were cut), ``parse_share`` (share of turns that parse), ``tools/call_frequency`` (calls of a trajectory) and
        ``tools/failure_frequency`` (share of calls that failed; 0 without calls).
    """
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    results = [result for trajectory in trajectories for result in trajectory.results]
    return {
        "completions/mean_length": sampled_tokens(trajectories) / len(trajectories),
        "completions/clipped_ratio": fmean(turn.status is Status.TRUNCATED for turn in turns),
        "parse_share": fmean(turn.status is Status.OK for turn in turns),
        "tools/call_frequency": len(results) / len(trajectories),
        "tools/failure_frequency": sum(result.status in _FAILED for result in results) / max(1, len(results)),
    }


def rollout_stats(
    episodes: Sequence[Episode], breakdowns: Sequence[Mapping[str, Breakdown]], rewards: Tensor, group: Tensor
) -> dict[str, float]:
    """Summarise the episodes of one rollout.

    Args:
        episodes: E finished episodes, at least one, all of the same agents.
        breakdowns: one per episode.
        rewards: float ``(E, A)``, the reward that each agent learns from, agents in the order of the trajectories.
        group: long ``(E,)``, which sample each episode belongs to.

    Returns:
        Log name to value: ``<agent>/...`` and ``team/reward``.
    """
    values = {"team/reward": fmean(team_rewards(episodes)), **term_stats(breakdowns)}
    for column, agent in enumerate(episodes[0].trajectories):
        stats = reward_stats(rewards[:, column], group)
        stats |= trajectory_stats([episode.trajectories[agent] for episode in episodes])
        values |= {f"{agent}/{name}": value for name, value in stats.items()}
    return values


def sampled_tokens(trajectories: Sequence[Trajectory]) -> int:
    """Count the tokens that policies sampled."""
    return sum(len(turn.reply_ids) for trajectory in trajectories for turn in trajectory.turns)
