"""The team's answer: votes on what answers mean, and ties."""

import pytest

from m1lite.collaboration.aggregate import best, best_logprob, canonical, designated, vote
from m1lite.records import Answer, Box, Span, Trajectory


def team(**answers):
    """Agent name to (answer, mean log-probability)."""
    return {
        name: Trajectory(agent=name, answer=answer, answer_logprob=logprob)
        for name, (answer, logprob) in answers.items()
    }


def text(words):
    return Answer(text=words)


def test_the_majority_wins_whatever_the_logprobs():
    answers = team(ada=(text("left"), -0.1), bea=(text("Right "), -5), cyd=(text("right"), -9))
    assert vote(answers) == text("Right ")


def test_ties_go_to_the_mean_logprob_then_to_the_earlier_agent():
    two = team(ada=(text("a"), -2), bea=(text("b"), -1), cyd=(text("a"), -2), dov=(text("b"), -2))
    assert vote(two) == text("b")
    assert vote(team(ada=(text("a"), -1), bea=(text("b"), -1))) == text("a")
    assert vote(team(bea=(text("b"), -1), ada=(text("a"), -1))) == text("b")


def test_agents_without_an_answer_do_not_vote():
    assert vote(team(ada=(None, 0), bea=(None, 0), cyd=(text("c"), -9))) == text("c")
    assert vote(team(ada=(None, 0))) is None
    assert best_logprob(team(ada=(None, 0), bea=(text("b"), -3))) == text("b")
    assert best_logprob(team(ada=(None, 0))) is None


def test_a_designated_agent_speaks_alone():
    answers = team(ada=(text("a"), -1), bea=(None, 0))
    assert designated("ada")(answers) == text("a")
    assert designated("bea")(answers) is None
    with pytest.raises(ValueError, match="'eve' is not in the team; there are ada, bea"):
        designated("eve")(answers)


def test_the_best_score_wins():
    answers = team(ada=(text("a"), -1), bea=(text("b"), -0.5), cyd=(text("c"), -0.5))
    assert best_logprob(answers) == text("b")
    assert best(lambda trajectory: -trajectory.answer_logprob)(answers) == text("a")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (text("Left  lane"), text("left lane"), True),
        (text("left"), text("right"), False),
        (Answer(number=4), Answer(number=4.0), True),
        (Answer(number=4), Answer(number=5), False),
        (Answer(spans=(Span(start=9, end=15),)), Answer(spans=(Span(start=9.01, end=14.99),)), True),
        (Answer(spans=(Span(start=9, end=15),)), Answer(spans=(Span(start=9, end=16),)), False),
        (
            Answer(boxes=(Box(left=1, top=2, right=3, bottom=4),)),
            Answer(boxes=(Box(left=1.2, top=2, right=3, bottom=4),)),
            True,
        ),
        (Answer(boxes=(Box(left=1, top=2, right=3, bottom=4),)), Answer(), False),
        (Answer(events=("A", "b")), Answer(events=("a", "b")), True),
        (Answer(events=("a", "b")), Answer(events=("b", "a")), False),
    ],
)
def test_what_counts_as_the_same_answer(one, other, same):
    assert (canonical(one) == canonical(other)) is same
