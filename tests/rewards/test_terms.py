"""The three terms by hand."""

import pytest

from m1lite.records import Answer, Span, Status, Task, TurnKind
from m1lite.rewards.judge import Verdict
from m1lite.rewards.terms import Collaboration, Format, Result


@pytest.fixture
def half(table, make):
    """ada's span overlaps the truth by 1/3, the team's is right."""
    truth = Answer(spans=(Span(start=9, end=15),))
    table.episode.sample = make(Task.GROUNDING, "when red-square", truth)
    table.episode.trajectories["ada"].answer = Answer(spans=(Span(start=12, end=18),))
    table.episode.answer = truth
    return table


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2 / 3 - 1),
        ({"scope": "team"}, 1.0),
        ({"scale": "binary"}, -1.0),
        ({"scale": "binary", "threshold": 0.3}, 1.0),
        ({"correct": 2.0, "wrong": 0.5}, 0.5 + 1.5 / 3),
        ({"correct": 2.0, "wrong": 0.5, "scale": "binary"}, 0.5),
    ],
)
def test_result(half, options, expected):
    assert half.ask(Result(**options)) == pytest.approx(expected)


def test_result_of_an_unreadable_answer_is_the_penalty(half):
    half.episode.trajectories["ada"].answer = None
    half.episode.answer = None
    assert half.ask(Result()) == half.ask(Result(scope="team")) == half.ask(Result(scale="binary")) == -1.0


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("kind", list(TurnKind))
def test_format_wants_every_turn_readable(table, turn, kind, status):
    table.episode.trajectories["ada"].turns.append(turn(kind, status))
    bad = status in (Status.INVALID_PLAN, Status.INVALID_ANSWER, Status.TRUNCATED)
    assert table.ask(Format()) == (-0.5 if bad else 0.5)
    assert table.ask(Format(), "bea") == 0.5


@pytest.mark.parametrize(
    ("status", "expected"),
    [(Status.OK, 1.0), (Status.TOOL_TIMEOUT, 1.0), (Status.CALL_LIMIT, 1.0), (Status.TOOL_ERROR, -2.0)],
)
def test_format_wants_every_call_executable(table, status, expected):
    table.call("ada", 1, "fine_browser", status, question="objects")
    assert table.ask(Format(valid=1.0, invalid=-2.0)) == expected


def test_format_of_a_silent_agent_is_unknown(table):
    table.episode.trajectories["ada"].turns.clear()
    assert table.ask(Format()) is None


@pytest.mark.parametrize(
    ("verdict", "expected"), [(Verdict(good=True), 1.0), (Verdict(good=False, reasons=("x",)), 0.0), (None, None)]
)
def test_collaboration_pays_the_verdict(table, verdict, expected):
    assert table.ask(Collaboration(lambda *_: verdict)) == expected


def test_too_many_calls_replace_the_verdict(table):
    asked = []

    def judge(*_):
        asked.append(1)
        return Verdict(good=True)

    term = Collaboration(judge, good=0.7, too_many_calls=-3.0)
    for number in range(5):
        table.call("ada", number, "global_sampling", num_frames=number + 1)
    table.call("bea", 1, "rough_browser", question="objects")
    assert table.ask(term) == 0.7
    table.call("ada", 6, "rough_browser", Status.CALL_LIMIT, question="objects")  # dropped, but asked for
    assert table.ask(term) == -3.0
    assert len(asked) == 1


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="`scale` is 'sign'; it must be 'binary' or 'graded'"):
        Result(scale="sign")
    with pytest.raises(ValueError, match="`scope` is 'all'"):
        Result(scope="all")
    with pytest.raises(ValueError, match=r"`threshold` is 0; it must be in \(0, 1\]"):
        Result(threshold=0)
