"""What holds for every spelling: no text raises, and what it writes it reads."""

import random
import string
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m1lite.agents.compact import CompactSpelling
from m1lite.agents.json_spelling import JsonSpelling
from m1lite.agents.plan import MAX_CHARACTERS, number_word, read_number
from m1lite.records import Answer, Box, Plan, Span, Status, Task, ToolCall
from m1lite.toolbox import check_arguments

FAST = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session", params=["compact", "json"])
def spelling(request, tools):
    return CompactSpelling(tools) if request.param == "compact" else JsonSpelling()


def read_everything(spelling, text, tools, sample_of):
    """Every parser's outcome for a text; checks that a status comes with its message."""
    outcomes = [spelling.parse_plan(text, tools), spelling.parse_decision(text, tools)]
    answers = [spelling.parse_answer(text, sample_of(task)) for task in Task]
    for parsed in outcomes:
        assert parsed.status in (Status.OK, Status.INVALID_PLAN)
    for parsed in answers:
        assert parsed.status in (Status.OK, Status.INVALID_ANSWER)
        assert (parsed.value is None) == (parsed.status is not Status.OK)
    for parsed in [*outcomes, *answers]:
        assert (parsed.message == "") == (parsed.status is Status.OK)
        assert len(parsed.message) < 1500
    return outcomes, answers


WORDS = "0 9 15 64 -1 1e999 nan inf ; : = | ? none keep revise answer red-square objects grounding_tool fine_browser"
PIECES = '{ } [ ] "tool" "args" , <answer> </answer> <think> </think> null true'
words = st.sampled_from(
    [
        *WORDS.split(),
        *PIECES.split(),
        '{"decision": "keep"}',
        '{"decision": "revise", "plan": ',
        '[{"tool": "grounding_tool", "args": {"event": "x"}}]',
        '{"start": 1, "end": ',
        '{"boxes": [[1, 2, 3, 4]',
        '{"number": 1e400}',
        "\u0661\u0662",
        "\ud800",
        "\x00",
    ]
)


@FAST
@given(text=st.one_of(st.text(), st.lists(words, max_size=30).map(" ".join), st.lists(words, max_size=30).map("".join)))
def test_no_text_raises(text, spelling, tools, sample_of):
    read_everything(spelling, text, tools, sample_of)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "<answer>" + '{"a":' * 15_000 + "</answer>",
        '[{"tool": "grounding_tool", "args": ' + "[" * 5_000 + "]" * 5_000 + "}]",
        "9" * 50_000,
        '[{"tool": "every_kind", "args": {"text": "a", "count": ' + "9" * 40_000 + "}}]",
        f'<answer>{{"number": {"9" * 40_000}, "start": {"9" * 400}, "end": {"9" * 400}}}</answer>',
        "<think>" * 10_000,
        "none ; " * 14_000,
        "{}" * 40_000,
        "keep " * 15_000,
        "-" * 90_000,
    ],
    ids=lambda text: text[:12],
)
def test_bombs_are_refused_quickly(text, spelling, tools, sample_of):
    started = time.process_time()
    outcomes, _ = read_everything(spelling, text, tools, sample_of)
    assert time.process_time() - started < 2
    assert all(parsed.status is not Status.OK for parsed in outcomes)


@pytest.mark.parametrize("unit", ["[", "9 ", "x", "keep ; ", '{"a": [', "<answer>", "</think>", "\n"])
def test_a_megabyte_is_refused_unread(unit, spelling, tools, sample_of):
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    started = time.process_time()
    outcomes, answers = read_everything(spelling, text, tools, sample_of)
    assert time.process_time() - started < 1
    for parsed in [*outcomes, *answers]:
        assert parsed.message == f"The reply has 1000000 characters; at most {MAX_CHARACTERS} are read."


word = st.text(string.ascii_letters + string.digits + "-_.,!äß中", min_size=1, max_size=8).filter(
    lambda text: text not in ("none", "-") and ";" not in text
)
number = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6, allow_nan=False))


@st.composite
def values(draw, parameter):
    if parameter.choices:
        return draw(st.sampled_from(parameter.choices))
    if parameter.kind is str:
        return draw(word)
    if parameter.kind is bool:
        return draw(st.booleans())
    low, high = (parameter.limits.low, parameter.limits.high) if parameter.limits else (-(10**6), 10**6)
    if parameter.kind is int:
        return draw(st.integers(int(low), int(high)))
    return draw(st.floats(low, high, allow_nan=False))


@st.composite
def plans(draw, tools):
    steps = []
    for tool in draw(st.lists(st.sampled_from(tools), max_size=5)):
        given_ones = [entry for entry in tool.parameters if entry.required or draw(st.booleans())]
        args = {entry.name: draw(values(entry)) for entry in given_ones}
        steps.append(ToolCall(tool=tool.name, args=check_arguments(tool, args)))
    return Plan(steps=tuple(steps))


@FAST
@given(data=st.data())
def test_plans_and_decisions_come_back(data, spelling, tools):
    plan = data.draw(plans(tools))
    assert spelling.parse_plan(spelling.write_plan(plan), tools).value == plan
    parsed = spelling.parse_decision(spelling.write_decision(plan), tools)
    assert (parsed.value, parsed.status) == (plan, Status.OK)


def test_keep_comes_back_as_ok_without_a_plan(spelling, tools):
    parsed = spelling.parse_decision(spelling.write_decision(None), tools)
    assert (parsed.value, parsed.status, parsed.message) == (None, Status.OK, "")


@st.composite
def answers(draw, sample):
    start, end = sorted((draw(number), draw(number)))
    spans = (Span(start=start, end=end),)
    if sample.task is Task.GROUNDING:
        return Answer(spans=spans)
    if sample.task is Task.CHOICE:
        return Answer(text=draw(st.sampled_from(sample.options)))
    if sample.task is Task.COUNTING:
        return Answer(number=draw(st.integers(0, 10**9)))
    text = word.filter(lambda text: read_number(text) is None and text not in ("|", ":", "=", "?"))
    if sample.task is Task.GROUNDED_QA:
        return Answer(text=draw(text), spans=spans)
    if sample.task is Task.CAPTION:
        return Answer(events=tuple(draw(st.lists(text, max_size=6))))
    boxes = []
    for _ in sample.times:
        (left, right), (top, bottom) = (sorted((draw(number), draw(number))) for _ in range(2))
        boxes.append(Box(left=left, top=top, right=right, bottom=bottom))
    return Answer(boxes=tuple(boxes))


@pytest.mark.parametrize("task", list(Task))
@FAST
@given(data=st.data())
def test_answers_come_back(data, task, spelling, sample_of):
    sample = sample_of(task)
    answer = data.draw(answers(sample))
    parsed = spelling.parse_answer(spelling.write_answer(answer, sample), sample)
    assert (parsed.value, parsed.message) == (answer, "")


@pytest.mark.parametrize(
    ("task", "missing"),
    [
        (Task.GROUNDING, "one of `spans`"),
        (Task.CHOICE, "`text`"),
        (Task.COUNTING, "`number`"),
        (Task.GROUNDED_QA, "`text`"),
        (Task.TRACKING, "`boxes`"),
    ],
)
def test_an_answer_that_lacks_its_field_is_not_written(task, missing, spelling, sample_of):
    with pytest.raises(ValueError, match=f"a {task.value} question needs {missing}, got none"):
        spelling.write_answer(Answer(), sample_of(task))


def test_numbers_come_back_and_others_are_none():
    rng = random.Random(0)
    for value in [0, 5, -3, 47.0, 9.5, 1 / 3, 1e-7, 123456.789, *(rng.uniform(-1e6, 1e6) for _ in range(200))]:
        assert read_number(number_word(value)) == value
    for text in ["", "-", "1.", ".5", "0x1", "1_0", "\uff11", "1e9999", "nan", "inf", "9" * 21, "1 2", "\u0663"]:
        assert read_number(text) is None, text
