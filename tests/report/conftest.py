"""Verdicts of small evaluations, from a function of the question."""

import pytest

from m1lite.evaluation import Verdict

TASKS = ("choice", "grounding")


def make_verdicts(team, *, videos=6, agents=None, offset=0):
    """One question per task and video; ``team`` and each of ``agents`` give a score for (video number, task)."""
    agents = agents or {"ada": team, "bea": lambda video, task: -1.0}
    return [
        Verdict(
            sample_id=f"v{video}-{task}",
            video=f"v{video}",
            task=task,
            team=team(video, task),
            agents={name: score(video, task) for name, score in agents.items()},
            parsed=dict.fromkeys(agents, 0.75),
            calls=3,
            sampled_tokens=10,
            read_tokens=90,
        )
        for video in range(offset, offset + videos)
        for task in TASKS
    ]


@pytest.fixture(scope="session")
def verdicts():
    return make_verdicts
