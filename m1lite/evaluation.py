"""A team on a split: play it, score it, compare two runs, and the figures of ``metrics.json``.

Playing is the collaboration loop with no Lightning around it; scoring and comparing are functions of verdicts, one
small record per question, so that results of several ranks are put together as plain rows. Blind baselines stand in
baselines.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Any

from m1lite.collaboration.aggregate import Aggregate, vote
from m1lite.collaboration.loop import run
from m1lite.collaboration.topology import Topology, complete
from m1lite.metrics.bootstrap import Estimate, bootstrap_difference, bootstrap_mean
from m1lite.records import Answer, Episode, Sample, Status

if TYPE_CHECKING:
    from m1lite.agents.agent import Agent
    from m1lite.collaboration.scheduler import Tools
    from m1lite.engines.base import Sampler
    from m1lite.records import ToolCall, ToolResult

Score = Callable[[Sequence[Sample], Sequence[Answer | None]], list[float]]
"""Scores answers in [0, 1], one per sample."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Verdict:
    """How one episode went, in plain numbers."""

    sample_id: str
    video: str
    task: str
    team: float
    """Score of the team's answer, ``2 m - 1`` in [-1, 1]."""
    agents: dict[str, float]
    """Score of each agent's own answer."""
    parsed: dict[str, float]
    """Share of each agent's replies that parse."""
    calls: int
    """Executed tool calls."""
    sampled_tokens: int
    read_tokens: int
    """Prompt tokens, every one counted once however many turns saw it."""


@dataclass(kw_only=True, frozen=True)
class Evaluator:
    """Plays a team on samples.

    Args:
        sampler: draws replies.
        tools: runs calls.
        score: scores answers in [0, 1].
        aggregate: the team's answer.
        max_rounds: of execution and communication.
        max_calls: of each agent.
        batch_size: samples that are played together.
        run_team: plays a batch; ``loop.run`` or what stands in for it, such as several passes (passes.py).
        seed: of all replies; the same for every evaluation, so that comparisons are paired.
    """

    sampler: Sampler
    tools: Tools
    score: Score
    aggregate: Aggregate = vote
    max_rounds: int = 5
    max_calls: int = 5
    batch_size: int = 64
    run_team: Callable[..., list[Episode]] = run
    seed: int = 0

    def play(
        self,
        agents: Sequence[Agent],
        samples: Sequence[Sample],
        *,
        temperature: float,
        topology: Topology = complete,
        tools: Tools | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Episode]:
        """Play one episode per sample.

        Args:
            agents: the team.
            samples: with distinct ids.
            temperature: of every agent; 0 is greedy.
            topology: who reads whom.
            tools: instead of the evaluator's own.
            on_batch: called with the number of samples of every finished batch.

        Returns:
            One episode per sample, in order.
        """
        players = [replace(agent, sampling=replace(agent.sampling, temperature=temperature)) for agent in agents]
        episodes: list[Episode] = []
        for start in range(0, len(samples), self.batch_size):
            batch = samples[start : start + self.batch_size]
            episodes += self.run_team(
                batch,
                players,
                self.sampler,
                tools or self.tools,
                episodes=1,
                seed=self.seed,
                topology=topology,
                aggregate=self.aggregate,
                max_rounds=self.max_rounds,
                max_calls=self.max_calls,
            )
            if on_batch is not None:
                on_batch(len(batch))
        return episodes

    def verdicts(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """Score episodes."""
        names = list(episodes[0].trajectories) if episodes else []
        samples = [episode.sample for episode in episodes]
        team = self.score(samples, [episode.answer for episode in episodes])
        own = {name: self.score(samples, [episode.trajectories[name].answer for episode in episodes]) for name in names}
        return [
            _verdict(episode, 2 * team[row] - 1, {name: 2 * own[name][row] - 1 for name in names})
            for row, episode in enumerate(episodes)
        ]


def _verdict(episode: Episode, team: float, agents: dict[str, float]) -> Verdict:
    trajectories = episode.trajectories
    turns = [turn for trajectory in trajectories.values() for turn in trajectory.turns]
    return Verdict(
        sample_id=episode.sample.id,
        video=episode.sample.video,
        task=str(episode.sample.task),
        team=team,
        agents=agents,
        parsed={
            name: sum(turn.status is Status.OK for turn in trajectory.turns) / max(1, len(trajectory.turns))
            for name, trajectory in trajectories.items()
        },
        calls=sum(len(trajectory.calls) for trajectory in trajectories.values()),
        sampled_tokens=sum(len(turn.reply_ids) for turn in turns),
        read_tokens=sum(len(turn.prompt_ids) for turn in turns),
    )


class OtherVideos:
    """Tools that look at another video than the question's: the blind control for a trained team.

    Every sample gets the next video in order of duration, so that windows stay legal as far as can be; the longest
    video's get the shortest.

    Args:
        samples: all samples that will be played, of at least two videos.
        tools: the real tools.

    Raises:
        ValueError: if there is only one video.
    """

    def __init__(self, samples: Sequence[Sample], tools: Tools) -> None:
        self._durations = {sample.video: sample.duration for sample in samples}
        videos = sorted(self._durations, key=lambda video: (self._durations[video], video))
        if len(videos) < 2:
            raise ValueError(f"`samples` show {len(videos)} video(s); another video's results need at least 2.")
        self._following = dict(zip(videos, [*videos[1:], videos[0]], strict=True))
        self._tools = tools

    def submit(self, calls: Sequence[tuple[Sample, ToolCall]], done: Callable[[list[ToolResult]], None]) -> None:
        """Start calls on the other videos."""
        moved = []
        for sample, call in calls:
            video = self._following[sample.video]
            moved.append((replace(sample, video=video, duration=self._durations[video]), call))
        self._tools.submit(moved, done)


def summary(verdicts: Sequence[Verdict], *, num_draws: int = 10_000) -> dict[str, Any]:
    """Make the figures of one stage: the team's and each agent's scores with 95 % intervals.

    Args:
        verdicts: of one evaluation, at least one.
        num_draws: of the bootstrap over videos.

    Returns:
        ``team`` and ``agents.<name>``, each with ``score``, ``tasks.<task>`` and ``parse_share`` as
        ``{mean, ci95, n}``; and ``tokens`` and ``calls``, sums.
    """
    names = list(verdicts[0].agents)
    team = _scores(verdicts, [verdict.team for verdict in verdicts], num_draws)
    shares = [sum(verdict.parsed.values()) / len(verdict.parsed) for verdict in verdicts]
    team["parse_share"] = _estimate(shares, verdicts, num_draws)
    agents = {}
    for name in names:
        agents[name] = _scores(verdicts, [verdict.agents[name] for verdict in verdicts], num_draws)
        agents[name]["parse_share"] = _estimate([verdict.parsed[name] for verdict in verdicts], verdicts, num_draws)
    return {
        "team": team,
        "agents": agents,
        "tokens": sum(verdict.sampled_tokens + verdict.read_tokens for verdict in verdicts),
        "calls": sum(verdict.calls for verdict in verdicts),
    }


def gain(
    first: Mapping[str, float], second: Mapping[str, float], verdicts: Sequence[Verdict], *, num_draws: int = 10_000
) -> dict[str, Any]:
    """Compare two scorings of the same questions, paired by question and clustered by video.

    Args:
        first: sample id to score.
        second: sample id to the score that is subtracted.
        verdicts: of the questions that are compared; tell their videos and tasks.
        num_draws: of the bootstrap over videos.

    Returns:
        ``{mean, ci95, n, p_value, tasks: {<task>: {mean, ci95, n, p_value}}}``.
    """

    def compare(rows: Sequence[Verdict]) -> dict[str, Any]:
        return figures(
            bootstrap_difference(
                [first[row.sample_id] for row in rows],
                [second[row.sample_id] for row in rows],
                [row.video for row in rows],
                tasks=[row.task for row in rows],
                num_draws=num_draws,
            )
        )

    tasks = sorted({row.task for row in verdicts})
    return {**compare(verdicts), "tasks": {task: compare([r for r in verdicts if r.task == task]) for task in tasks}}


def team_scores(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Give sample id to the team's score."""
    return {verdict.sample_id: verdict.team for verdict in verdicts}


def agent_scores(verdicts: Sequence[Verdict], name: str) -> dict[str, float]:
    """Give sample id to one agent's own score."""
    return {verdict.sample_id: verdict.agents[name] for verdict in verdicts}


def best_agent(verdicts: Sequence[Verdict]) -> str:
    """Name the agent whose own answers score best, tasks weighted equally."""
    tasks = {verdict.task for verdict in verdicts}

    def mean(name: str) -> float:
        parts = [[v.agents[name] for v in verdicts if v.task == task] for task in tasks]
        return sum(sum(part) / len(part) for part in parts) / len(parts)

    return max(verdicts[0].agents, key=mean)


def figures(estimate: Estimate) -> dict[str, Any]:
    """Write an estimate as the plain numbers of ``metrics.json``; what one video alone cannot tell is ``None``."""
    low, high, p_value = (None if isnan(x) else x for x in (estimate.low, estimate.high, estimate.p_value))
    return {"mean": estimate.mean, "ci95": [low, high], "n": estimate.n, "p_value": p_value}


def _scores(verdicts: Sequence[Verdict], values: Sequence[float], num_draws: int) -> dict[str, Any]:
    def of_task(task: str) -> dict[str, Any]:
        rows = [row for row, verdict in enumerate(verdicts) if verdict.task == task]
        return _estimate([values[row] for row in rows], [verdicts[row] for row in rows], num_draws)

    tasks = sorted({verdict.task for verdict in verdicts})
    return {"score": _estimate(values, verdicts, num_draws), "tasks": {task: of_task(task) for task in tasks}}


def _estimate(values: Sequence[float], verdicts: Sequence[Verdict], num_draws: int) -> dict[str, Any]:
    estimate = bootstrap_mean(
        values,
        [verdict.video for verdict in verdicts],
        tasks=[verdict.task for verdict in verdicts],
        num_draws=num_draws,
    )
    found = figures(estimate)
    del found["p_value"]
    return found
