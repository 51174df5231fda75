"""Makers of small samples, episodes and trajectories."""

import pytest

from m1lite.records import (
    Answer,
    Episode,
    Message,
    MessageKind,
    Plan,
    Sample,
    Status,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    TurnKind,
)


def make_sample(task=Task.CHOICE, question="next red-square", answer=None, **fields):
    options = ("blue-circle", "green-diamond") if task is Task.CHOICE else ()
    answer = answer or Answer(text="blue-circle")
    fields = {"id": "s", "video": "v.mp4", "duration": 47.0, "options": options, **fields}
    return Sample(task=task, question=question, answer=answer, **fields)


def make_turn(kind=TurnKind.PLAN, status=Status.OK, round=0):
    return Turn(
        kind=kind,
        round=round,
        prompt_ids=[],
        reply_ids=[],
        logprobs=[],
        policy_version=0,
        seed=0,
        text="",
        status=status,
    )


class Table:
    """An episode that is written round by round."""

    def __init__(self, sample, visible):
        self.episode = Episode(sample=sample, index=0, seed=0, visible=visible)
        for agent in visible:
            trajectory = Trajectory(agent=agent, turns=[make_turn(), make_turn(TurnKind.ANSWER, round=9)])
            self.episode.trajectories[agent] = trajectory

    def call(self, agent, round, tool, status=Status.OK, **args):
        """Record a call as the loop does: dropped ones in the memory only."""
        call = ToolCall(tool=tool, args=args)
        error = "refused" if status is Status.TOOL_ERROR else None
        if status is not Status.CALL_LIMIT:
            trajectory = self.episode.trajectories[agent]
            trajectory.calls.append(call)
            trajectory.results.append(ToolResult(text="seen 0", error=error, status=status))
        message = Message(author=agent, round=round, kind=MessageKind.RESULT, text="seen 0", call=call, status=status)
        self.episode.messages.append(message)
        return self

    def plan(self, agent, *calls):
        """Record a plan as the loop does."""
        self.episode.messages.append(
            Message(author=agent, round=0, kind=MessageKind.PLAN, text="", plan=Plan(steps=tuple(calls)))
        )
        return self

    def ask(self, function, agent="ada"):
        """Ask a term, a gate or a judge about an agent."""
        return function(self.episode.sample, self.episode, self.episode.trajectories[agent])


@pytest.fixture
def table():
    """An episode of ada and bea; bea reads ada."""
    return Table(make_sample(), {"ada": (), "bea": ("ada",)})


@pytest.fixture
def make():
    """The maker of samples."""
    return make_sample


@pytest.fixture
def turn():
    """The maker of turns."""
    return make_turn
