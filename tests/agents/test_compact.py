"""The compact spelling: the exact texts, and messages that name the value and what is allowed."""

import pytest

from m1lite.agents.compact import CompactSpelling
from m1lite.modules.tiny import WORDS
from m1lite.records import Answer, Box, Message, MessageKind, Plan, Span, Status, Task, ToolCall

GROUND = ToolCall(tool="grounding_tool", args={"event": "red-square"})
ROUGH = ToolCall(tool="rough_browser", args={"question": "objects", "start": 10, "end": 30})
IMAGE = ToolCall(tool="image_retrieval", args={"query": "red-square", "start": 10, "end": 20})


@pytest.fixture(scope="module")
def spelling(tools):
    return CompactSpelling(tools)


@pytest.fixture(scope="module")
def own(tools):
    return [tool for tool in tools if tool.name in ("grounding_tool", "rough_browser", "image_retrieval")]


def result(author, call, text, status=Status.OK):
    return Message(author=author, round=1, kind=MessageKind.RESULT, text=text, call=call, status=status)


@pytest.mark.parametrize(
    ("task", "question"),
    [
        (Task.GROUNDING, "video 47 : when red-square"),
        (Task.CHOICE, "video 47 : next red-square ? blue-circle green-square red-circle blue-square"),
        (Task.COUNTING, "video 47 : count objects"),
        (Task.GROUNDED_QA, "video 47 : where red-square"),
        (Task.TRACKING, "video 47 : track red-square t 10 14"),
        (Task.CAPTION, "video 47 : list objects"),
    ],
)
def test_questions(task, question, spelling, sample_of):
    assert spelling.question(sample_of(task)) == question
    # Options and times stand in the first turn only: the object comes last before the reply.
    assert spelling.ask_answer(sample_of(task), [], []) == f"answer : {' '.join(question.split()[3:5])}"
    assert set(question.split()) <= set(WORDS)


def test_the_system_prompt_lists_the_tools(spelling, own):
    assert spelling.system("a role", own) == "tools image_retrieval rough_browser grounding_tool"


def test_observation_shows_results_but_no_plans(spelling, sample_of):
    own = [result("ada", GROUND, "red-square 9 15")]
    peers = [
        Message(
            author="bea", round=0, kind=MessageKind.PLAN, text="rough_browser objects 10 30", plan=Plan(steps=(ROUGH,))
        ),
        result("bea", ROUGH, "seen 1 red-square"),
        Message(author="bea", round=1, kind=MessageKind.DECISION, text="keep"),
        result("cyd", IMAGE, "the window is reversed", Status.TOOL_ERROR),
    ]
    lines = (
        "me : grounding_tool red-square = red-square 9 15 | bea : rough_browser objects 10 30 = seen 1 red-square | "
        "cyd : image_retrieval red-square none 10 20 = error"
    )
    assert spelling.observation(own, peers, "") == f"{lines} | keep ?"
    assert spelling.observation(own, peers, "no such tool") == f"me : invalid | {lines} | keep ?"
    assert spelling.ask_answer(sample_of(), own, peers) == f"{lines} | answer : when red-square"
    assert spelling.observation([], [], "") == "keep ?"
    assert set(f"{lines} me : invalid | keep ?".split()) <= set(WORDS)


def test_plans_are_positional_and_gaps_are_none(spelling, own):
    plan = Plan(steps=(GROUND, ROUGH, IMAGE))
    text = "grounding_tool red-square ; rough_browser objects 10 30 ; image_retrieval red-square none 10 20"
    assert spelling.write_plan(plan) == text
    assert spelling.parse_plan(text, own).value == plan
    assert spelling.write_plan(Plan()) == "none"
    assert spelling.parse_plan("none", own).value == Plan()
    assert spelling.write_decision(Plan()) == "revise none"
    assert spelling.parse_decision("revise rough_browser objects 10 30", own).value == Plan(steps=(ROUGH,))


@pytest.mark.parametrize(
    ("answer", "task", "text"),
    [
        (Answer(spans=(Span(start=9, end=15),)), Task.GROUNDING, "red-square 9 15"),
        (Answer(text="blue-circle"), Task.CHOICE, "red-square blue-circle"),
        (Answer(number=4), Task.COUNTING, "4"),
        (Answer(text="left", spans=(Span(start=9.0, end=15.0),)), Task.GROUNDED_QA, "red-square left red-square 9 15"),
        (
            Answer(boxes=(Box(left=3, top=4, right=9, bottom=10), Box(left=5, top=4, right=11, bottom=10))),
            Task.TRACKING,
            "red-square box 3 4 9 10 box 5 4 11 10",
        ),
        (Answer(events=("red-square", "blue-circle")), Task.CAPTION, "seen 2 red-square blue-circle"),
        (Answer(), Task.CAPTION, "seen 0"),
    ],
)
def test_answers(answer, task, text, spelling, sample_of):
    sample = sample_of(task)
    assert spelling.write_answer(answer, sample) == text
    assert spelling.parse_answer(text, sample).value == answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The plan is empty"),
        (
            "fly_away red-square",
            "There is no tool 'fly_away'; there are image_retrieval, rough_browser, grounding_tool.",
        ),
        ("spatial_tool red-square", "There is no tool 'spatial_tool'"),
        ("grounding_tool", "`grounding_tool` needs `event`"),
        ("grounding_tool red-square soon", "`start` of `grounding_tool` must be a number, got 'soon' (str)."),
        ("image_retrieval red-square 9", "`top_k` of `image_retrieval` must lie between 1 and 8, got 9."),
        ("grounding_tool a 1 2 3", "takes at most 3 arguments (event [start] [end]), '3' is one too many."),
        ("grounding_tool a ;", "A step is empty"),
        (" ; ".join(["grounding_tool a"] * 6), "The plan has 6 steps; at most 5 are allowed."),
    ],
)
def test_a_bad_plan_says_what_is_allowed(text, said, spelling, own):
    parsed = spelling.parse_plan(text, own)
    assert (parsed.value, parsed.status) == (None, Status.INVALID_PLAN)
    assert said in parsed.message
    assert said in spelling.parse_decision(f"revise {text}", own).message


def test_a_bad_decision_says_what_is_allowed(spelling, own):
    parsed = spelling.parse_decision("keep it", own)
    assert parsed.message == "The decision is 'keep it'; write `keep`, or `revise` and the remaining calls."


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        (Task.GROUNDING, "9 15", "The answer is '9 15'; write red-square and two numbers, start and end in seconds"),
        (Task.GROUNDING, "red-square 9", "The answer is '9'; write red-square and two numbers"),
        (Task.GROUNDING, "red-square 15 9", "The span 15 to 9 needs 0 <= start <= end"),
        (Task.GROUNDING, "red-square 9 15 16", "The answer is '9 15 16'"),
        (Task.GROUNDING, "red-square -1 9", "The span -1 to 9"),
        (
            Task.CHOICE,
            "red-square red-square",
            "The answer is 'red-square red-square'; write red-square and then one of 'blue-circle', 'green-square'",
        ),
        (Task.CHOICE, "blue-circle", "The answer is 'blue-circle'; write red-square and then one of"),
        (Task.CHOICE, "green-square blue-circle", "The answer is 'green-square blue-circle'"),
        (Task.CHOICE, "A", "The answer is 'A'"),
        (Task.COUNTING, "4.5", "The answer is 4.5; write one whole number"),
        (Task.COUNTING, "many", "The answer is 'many'; write one whole number"),
        (
            Task.GROUNDED_QA,
            "left 9 15",
            "The answer is 'left 9 15'; write red-square and one word, then red-square again",
        ),
        (Task.GROUNDED_QA, "red-square left 9 15", "The answer is '9 15'; write red-square and one word"),
        (Task.GROUNDED_QA, "red-square 4 red-square 9 15", "The answer names '4'"),
        (
            Task.TRACKING,
            "red-square box 3 4 9 10",
            "The answer is 'red-square box 3 4 9 10'; write red-square, and for each of 2 times `box` with left, top",
        ),
        (Task.TRACKING, "red-square box 9 4 3 10 box 5 4 11 10", "The box 9 4 3 10 needs left <= right"),
        (Task.CAPTION, "seen 1 ;", "The answer names ';'; write `seen`, how many events there are"),
        (
            Task.CAPTION,
            "seen 2 red-square",
            "The answer is 'seen 2 red-square'; write `seen`, how many",
        ),
        (Task.CAPTION, "", "The answer is ''; write `seen`"),
    ],
)
def test_a_bad_answer_says_what_is_allowed(task, text, said, spelling, sample_of):
    parsed = spelling.parse_answer(text, sample_of(task))
    assert (parsed.value, parsed.status) == (None, Status.INVALID_ANSWER)
    assert said in parsed.message


def test_texts_of_several_words_become_one(spelling, sample_of):
    call = ToolCall(tool="grounding_tool", args={"event": "the red square ; now"})
    assert spelling.write_plan(Plan(steps=(call,))) == "grounding_tool the-red-square-now"
    sample = sample_of(Task.CHOICE)
    sample.options = ("a red square", "nothing at all")
    assert spelling.question(sample).endswith("? a-red-square nothing-at-all")
    assert spelling.parse_answer("red-square a-red-square", sample).value == Answer(text="a red square")


def test_a_call_of_an_unknown_tool_is_not_written(own):
    with pytest.raises(LookupError, match="got no tool 'fly', only image_retrieval, rough_browser, grounding_tool"):
        CompactSpelling(own).write_plan(Plan(steps=(ToolCall(tool="fly", args={}),)))
