"""The rule judge on planted trajectories: one fault at a time."""

import pytest

from m1lite.records import Status, Task, TurnKind
from m1lite.rewards.judge import RuleJudge, count_calls

SUITS = {
    "choice": ["rough_browser", "fine_browser", "grounding_tool"],
    "grounding": ["grounding_tool"],
    "counting": ["rough_browser"],
}
JUDGE = RuleJudge(SUITS)


def reasons(table, agent="ada", judge=JUDGE):
    verdict = table.ask(judge, agent)
    assert verdict.good == (not verdict.reasons)
    return verdict.reasons


def test_a_clean_trajectory_is_good(table):
    table.call("ada", 1, "grounding_tool", event="red-square").call("ada", 2, "rough_browser", question="objects")
    table.call("ada", 3, "fine_browser", question="Blue-Circle", start=10, end=20)
    assert reasons(table) == ()


@pytest.mark.parametrize("kind", [TurnKind.PLAN, TurnKind.COMMUNICATE])
@pytest.mark.parametrize("status", [Status.INVALID_PLAN, Status.TRUNCATED])
def test_a_plan_that_does_not_parse(table, turn, kind, status):
    table.call("ada", 1, "grounding_tool", event="red-square")
    table.episode.trajectories["ada"].turns.append(turn(kind, status, round=2))
    assert reasons(table) == (f"{kind.value} of round 2: {status.value}",)


def test_a_bad_answer_is_not_the_plans_fault(table, turn):
    table.call("ada", 1, "grounding_tool", event="red-square")
    table.episode.trajectories["ada"].turns.append(turn(TurnKind.ANSWER, Status.INVALID_ANSWER))
    assert reasons(table) == ()


@pytest.mark.parametrize(
    ("status", "expected"), [(Status.TOOL_ERROR, ("grounding_tool was refused: refused",)), (Status.TOOL_TIMEOUT, ())]
)
def test_a_refused_call_speaks_against_a_slow_one_does_not(table, status, expected):
    table.call("ada", 1, "grounding_tool", status, event="red-square")
    assert reasons(table) == expected


def test_a_tool_that_does_not_suit(table, make):
    table.call("ada", 1, "rough_browser", question="objects")
    assert reasons(table) == ()
    table.episode.sample = make(Task.GROUNDING, "when red-square")
    assert reasons(table) == ("rough_browser does not suit grounding",)


@pytest.mark.parametrize("argument", ["query", "question", "event"])
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("red-square", True),
        ("the RED-SQUARE there", True),
        ("green-diamond", True),
        ("objects", True),
        ("yellow-square", False),
        ("red", False),
        ("the", False),
        ("", False),
    ],
)
def test_a_query_names_something_asked_for(table, argument, text, named):
    table.call("ada", 1, "grounding_tool", **{argument: text})
    expected = () if named else (f"grounding_tool looks for {text!r}, which the question does not name",)
    assert reasons(table) == expected


def test_function_words_name_nothing(make, table):
    table.episode.sample = make(question="When does the man open the door?")
    table.call("ada", 1, "grounding_tool", event="the man opens a door")
    assert reasons(table) == ()
    table.call("ada", 2, "grounding_tool", event="when does the dog bark")
    assert reasons(table) == ("grounding_tool looks for 'when does the dog bark', which the question does not name",)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"start": 5, "end": 9}, {"end": 9.0, "start": 5.0}, True),
        ({"start": 5}, {"start": 5, "end": None}, True),
        ({"event": "red-square"}, {"event": " Red-Square"}, True),
        ({"start": 5}, {"start": 6}, False),
        ({"start": 5}, {"end": 5}, False),
    ],
)
def test_an_own_repeat(table, first, second, same):
    table.call("ada", 1, "grounding_tool", **first).call("ada", 3, "grounding_tool", **second)
    found = reasons(table)
    assert len(found) == same
    assert all("repeats an own call" in reason for reason in found)


def test_a_repeat_of_a_visible_peer_of_an_earlier_round(table):
    table.call("ada", 1, "grounding_tool", event="red-square").call("bea", 2, "grounding_tool", event="red-square")
    assert reasons(table, "bea") == ('grounding_tool {"event": "red-square"} repeats a call of ada',)
    assert reasons(table, "ada") == ()


def test_a_call_of_the_same_round_or_of_a_hidden_peer_is_no_repeat(table):
    table.call("ada", 1, "grounding_tool", event="red-square").call("bea", 1, "grounding_tool", event="red-square")
    assert reasons(table, "bea") == ()
    table.call("bea", 1, "fine_browser", question="objects").call("ada", 2, "fine_browser", question="objects")
    assert reasons(table, "ada") == ()


def test_a_peers_plan_is_no_call(table):
    table.call("bea", 1, "grounding_tool", event="red-square")
    table.plan("ada", *table.episode.trajectories["bea"].calls)
    assert reasons(table, "bea") == ()


def test_a_dropped_call_of_a_peer_is_no_repeat(table):
    table.call("ada", 1, "grounding_tool", Status.CALL_LIMIT, event="red-square")
    table.call("bea", 2, "grounding_tool", event="red-square")
    assert reasons(table, "bea") == ()


def test_the_number_of_calls(table):
    assert reasons(table) == ("0 calls, at least 1 needed",)
    assert reasons(table, judge=RuleJudge(SUITS, min_calls=0)) == ()
    for number in range(5):
        table.call("ada", number + 1, "fine_browser", question="objects", start=number, end=number + 5)
    assert reasons(table) == ()
    table.call("ada", 6, "fine_browser", Status.CALL_LIMIT, question="objects", start=9, end=12)
    assert reasons(table) == ("6 calls, at most 5 allowed",)
    assert count_calls(table.episode, table.episode.trajectories["ada"]) == 6
    assert count_calls(table.episode, table.episode.trajectories["bea"]) == 0


def test_every_fault_is_told(table):
    table.call("ada", 1, "spatial_tool", Status.TOOL_ERROR, question="yellow-square")
    assert len(reasons(table)) == 3


def test_the_truth_is_never_read(table):
    table.call("ada", 1, "grounding_tool", event="red-square")
    table.episode.sample.answer = None
    table.episode.trajectories["ada"].answer = None
    assert reasons(table) == ()


def test_errors_name_the_task(table, make):
    with pytest.raises(ValueError, match=r"`suits` names the task 'chioce'; there are \['grounding', 'choice'"):
        RuleJudge({"chioce": ["rough_browser"]})
    table.episode.sample = make(Task.TRACKING, "track red-square")
    with pytest.raises(ValueError, match=r"nothing of the task 'tracking' \(sample 's'\)"):
        table.ask(JUDGE)
