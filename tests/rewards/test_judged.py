"""The result term with judged captions and short texts."""

import pytest

from m1lite.records import Answer, Span, Task
from m1lite.rewards.compose import WeightedTerm, compose
from m1lite.rewards.judged import JudgedResult


class Fake:
    """A judge of fixed verdicts that notes what it was asked."""

    def __init__(self, verdict):
        self.verdict = verdict
        self.asked = []
        self.ahead = []

    def __call__(self, *question):
        self.asked.append(question)
        return self.verdict

    def prepare(self, questions):
        self.ahead.append(list(questions))


@pytest.mark.parametrize(
    ("flags", "value"), [(([True, False], [True]), 2 * (2 / 3) - 1), (([False], [False]), -1.0), (None, None)]
)
def test_captions(table, make, flags, value):
    table.episode.sample = make(Task.CAPTION, "list", Answer(events=("a cut",)))
    judge = Fake(flags)
    table.episode.trajectories["ada"].answer = Answer(events=("it is cut", "more"))
    term = JudgedResult(events=judge)
    assert table.ask(term) == (None if value is None else pytest.approx(value))
    assert judge.asked == [(("it is cut", "more"), ("a cut",))]
    assert table.ask(term, "bea") == -1.0  # no answer
    table.episode.trajectories["bea"].answer = Answer()
    assert table.ask(term, "bea") == -1.0
    assert len(judge.asked) == 1


@pytest.mark.parametrize(("grade", "value"), [(1.0, 0.5), (0.5, 0.25), (0.0, 0.0), (None, None)])
def test_grounded_answers(table, make, grade, value):
    truth = Answer(text="left", spans=(Span(start=0, end=4),))
    table.episode.sample = make(Task.GROUNDED_QA, "where", truth)
    table.episode.trajectories["ada"].answer = Answer(text="on the left", spans=(Span(start=0, end=2),))
    judge = Fake(grade)
    assert table.ask(JudgedResult(answers=judge, correct=1.0, wrong=0.0)) == value
    assert judge.asked == [("where", "on the left", "left")]


def test_all_else_goes_by_rules(table):
    table.episode.trajectories["ada"].answer = table.episode.sample.answer
    assert table.ask(JudgedResult(events=Fake(None), answers=Fake(None))) == 1.0
    assert table.ask(JudgedResult()) == 1.0


def test_a_rollout_is_judged_together(table, make):
    table.episode.sample = make(Task.CAPTION, "list", Answer(events=("a cut",)))
    for agent in ("ada", "bea"):
        table.episode.trajectories[agent].answer = Answer(events=(f"{agent} says",))
    events, answers = Fake(None), Fake(None)
    term = JudgedResult(events=events, answers=answers)
    (breakdown,) = compose([table.episode], terms={"result": WeightedTerm(term=term)})
    assert {agent: found.total for agent, found in breakdown.items()} == {"ada": None, "bea": None}
    assert events.ahead == [[(("ada says",), ("a cut",)), (("bea says",), ("a cut",))]]
    assert answers.ahead == [[]]
