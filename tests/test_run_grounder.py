"""A trained team answers as a tool: what it is asked, and which of its answers count; test_ask.py asks a real run."""

import pytest

from m1lite.records import Answer, Episode, Span, Task, Trajectory
from m1lite.run_grounder import RunGrounder
from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.base import ToolContext
from m1lite.toolbox.learned.grounders import Proposal
from m1lite.video.cache import FrameCache


def context(video="clip.mp4", duration=20.0):
    return ToolContext(video=str(video), duration=duration, frames=FrameCache(2**24), look=None)


def span(start, end):
    return Answer(spans=(Span(start=start, end=end),))


class Team:
    """In place of a run: answers what ``answers`` holds, the first of them as the team."""

    agents = ("ada", "bea", "cyd")

    def __init__(self):
        self.answers, self.asked, self.loads = [span(3, 8), None, span(4, 9)], [], 0

    def play(self, agents, samples, *, temperature):
        assert (agents, temperature) == (self.agents, 0.0)
        self.asked += samples
        own = {name: Trajectory(agent=name, answer=one) for name, one in zip(agents, self.answers, strict=True)}
        return [
            Episode(sample=samples[0], index=0, seed=0, visible={}, trajectories=own, answer=next(iter(self.answers)))
        ]


@pytest.fixture
def team():
    return Team()


@pytest.fixture
def grounder(team):
    class Loaded(RunGrounder):
        def _load(self):
            team.loads += 1
            return team, team

    return Loaded


def test_the_team_is_asked_in_its_own_words_and_loaded_once(team, grounder):
    ask = grounder("here", question="when does {event} happen?")
    assert team.loads == 0
    assert ask(context(), "a {jump}", (0, 20), 1) == [Proposal(start=3, end=8)]
    assert ask(context(), "a fall", (0, 20), 3) == [Proposal(start=3, end=8), Proposal(start=4, end=9)]
    assert team.loads == 1
    assert [sample.question for sample in team.asked] == ["when does a {jump} happen?", "when does a fall happen?"]
    assert {(sample.task, sample.duration, sample.answer) for sample in team.asked} == {
        (Task.GROUNDING, 20.0, Answer())
    }


def test_windows_and_no_answer(team, grounder):
    ask = grounder("here")
    assert ask(context(), "red", (5, 20), 1) == [Proposal(start=5, end=8)]
    with pytest.raises(ModelError, match="What was named, 3 to 8, leaves nothing of the window from 10 to 20"):
        ask(context(), "red", (10, 20), 1)
    team.answers = [None, None, None]
    with pytest.raises(ModelError, match="The team named no span of time"):
        ask(context(), "red", (0, 20), 1)
    with pytest.raises(ValueError, match=r"`question` is 'when'; it needs \{event\}"):
        RunGrounder("here", question="when")
