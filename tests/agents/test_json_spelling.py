"""The JSON spelling: prompts that a person can read, JSON that may stand in prose, and messages that teach."""

import json

import pytest

from m1lite.agents.json_spelling import JsonSpelling
from m1lite.records import Answer, Box, Message, MessageKind, Plan, Span, Status, Task, ToolCall

SPELLING = JsonSpelling()
GROUND = ToolCall(tool="grounding_tool", args={"event": "red-square"})
STEP = '{"step": 1, "tool": "grounding_tool", "args": {"event": "red-square"}}'


def result(author, text, status=Status.OK):
    return Message(author=author, round=1, kind=MessageKind.RESULT, text=text, call=GROUND, status=status)


def test_the_system_prompt_holds_role_schemas_and_formats(tools):
    text = SPELLING.system("You watch closely.", tools[:2])
    assert text.startswith("You watch closely.\nYou belong to a team")
    schemas = [json.loads(line) for line in text.splitlines() if line.startswith('{"type"')]
    assert [schema["function"]["name"] for schema in schemas] == ["global_sampling", "video_retrieval"]
    assert "at most 5 calls" in text
    assert '{"decision": "keep"}' in text


def test_questions_show_options_by_content_and_times(sample_of):
    assert SPELLING.question(sample_of(Task.CHOICE)) == (
        "The video lasts 47 seconds.\nQuestion (choice): next red-square\nOptions:\n- blue-circle\n- green-square\n"
        "- red-circle\n- blue-square\n\nWrite your plan."
    )
    assert "Times: 10, 14" in SPELLING.question(sample_of(Task.TRACKING))


def test_observation_tells_what_peers_wrote_and_found():
    messages = [
        Message(author="bea", round=0, kind=MessageKind.PLAN, text="", plan=Plan(steps=(GROUND,))),
        Message(author="cyd", round=0, kind=MessageKind.PLAN, text="?", status=Status.INVALID_PLAN),
        result("bea", "red-square 9 15"),
        Message(author="bea", round=1, kind=MessageKind.DECISION, text=""),
        Message(author="cyd", round=1, kind=MessageKind.DECISION, text="", plan=Plan()),
        result("cyd", "`event` is odd", Status.TOOL_ERROR),
    ]
    assert SPELLING.observation([result("ada", "none")], messages, "it was no JSON").splitlines() == [
        "Your last reply could not be used: it was no JSON",
        'Your grounding_tool({"event": "red-square"}) found: none',
        f"bea plans [{STEP}]",
        "cyd wrote no valid plan.",
        'bea\'s grounding_tool({"event": "red-square"}) found: red-square 9 15',
        "bea keeps its plan.",
        "cyd changes the rest of its plan to []",
        'cyd\'s grounding_tool({"event": "red-square"}) failed: `event` is odd',
        "",
        "Keep the rest of your plan, or revise it? Reply with the decision in JSON.",
    ]


@pytest.mark.parametrize(
    ("task", "form"),
    [
        (Task.GROUNDING, '<answer>{"start": <seconds>, "end": <seconds>}</answer>.'),
        (Task.TRACKING, "</answer> with one box in pixels for each time."),
        (Task.CAPTION, '<answer>{"events": ["<event>", ...]}</answer> with the events in order of appearance.'),
    ],
)
def test_the_answer_is_asked_for_in_its_form(task, form, sample_of):
    text = SPELLING.ask_answer(sample_of(task), [result("ada", "none")], [])
    assert text.startswith('Your grounding_tool({"event": "red-square"}) found: none\n\nAnswer now. Question (')
    assert text.endswith(form)


@pytest.mark.parametrize(
    "text",
    [
        f"[{STEP}]",
        f"<think>I could [do] {{this}}</think>\nHere it is:\n```json\n[{STEP}]\n```\nGood luck [1].",
        f'{{"plan": [{STEP}]}}',
        '[{"tool": "grounding_tool", "args": {"event": "red-square", "start": null}, "why": "it is asked"}]',
        f"Broken [ first, then [{STEP}]",
    ],
)
def test_plans_are_found_in_what_surrounds_them(text, tools):
    assert SPELLING.parse_plan(text, tools).value == Plan(steps=(GROUND,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I will look.", "The reply 'I will look.' holds no readable JSON list; write the plan as one."),
        ("<think>hm", "opens <think> and never closes it"),
        ('[{"tool": "fly", "args": {}}]', "There is no tool 'fly'; there are global_sampling, "),
        ('[{"args": {}}]', "Step 1 is {'args': {}}; write"),
        ("[7]", "Step 1 is 7; write"),
        (
            '[{"tool": "grounding_tool", "args": {"event": 5}}]',
            "`event` of `grounding_tool` must be text, got 5 (int).",
        ),
        ('[{"tool": "grounding_tool", "args": []}]', "The arguments of `grounding_tool` must be an object"),
        ('[{"tool": "global_sampling", "args": {"num_frames": NaN}}]', "holds no readable JSON list"),
        ('[{"tool": "global_sampling", "args": {"frames": 2}}]', "`global_sampling` has no argument 'frames'"),
        (f"[{', '.join([STEP] * 6)}]", "The plan has 6 steps; at most 5 are allowed."),
    ],
)
def test_a_bad_plan_says_what_is_allowed(text, said, tools):
    parsed = SPELLING.parse_plan(text, tools)
    assert (parsed.value, parsed.status) == (None, Status.INVALID_PLAN)
    assert said in parsed.message


def test_decisions(tools):
    assert SPELLING.parse_decision('So: {"decision": "keep", "why": "fine"}', tools).status is Status.OK
    revised = SPELLING.parse_decision(f'{{"decision": "revise", "plan": [{STEP}]}}', tools)
    assert revised.value == Plan(steps=(GROUND,))
    wait = SPELLING.parse_decision('{"decision": "wait"}', tools)
    assert wait.message == "The decision is 'wait'; it must be 'keep' or 'revise'."
    assert "The revised plan is None" in SPELLING.parse_decision('{"decision": "revise"}', tools).message


def test_the_last_answer_block_counts(sample_of):
    text = '<think><answer>{"start": 1, "end": 2}</answer></think><answer>{"start": 3, "end": 4}</answer> or rather '
    text += '<answer>{"start": 9, "end": 15.5}</answer>'
    assert SPELLING.parse_answer(text, sample_of()).value == Answer(spans=(Span(start=9, end=15.5),))


def test_an_option_is_matched_by_content(sample_of):
    sample = sample_of(Task.CHOICE)
    sample.options = ("A dog", "a cat", "A cat")
    assert SPELLING.parse_answer('<answer>{"option": " a DOG "}</answer>', sample).value == Answer(text="A dog")
    assert SPELLING.parse_answer('<answer>{"option": "A cat"}</answer>', sample).value == Answer(text="A cat")
    twofold = SPELLING.parse_answer('<answer>{"option": "A CAT"}</answer>', sample)
    assert twofold.message == "`option` of the answer is 'A CAT'; it must be one of 'A dog', 'a cat', 'A cat'."


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        (Task.GROUNDING, '{"start": 1, "end": 2}', "has no <answer>...</answer> block"),
        (Task.GROUNDING, "<answer>9 to 15</answer>", "The reply '9 to 15' holds no readable JSON object"),
        (Task.GROUNDING, '<answer>{"start": 15, "end": 9}</answer>', "The span 15 to 9 needs 0 <= start <= end"),
        (
            Task.GROUNDING,
            '<answer>{"start": true, "end": 9}</answer>',
            "`start` of the answer is True; it must be a number",
        ),
        (Task.COUNTING, '<answer>{"number": 2.5}</answer>', "`number` of the answer is 2.5; it must be whole"),
        (
            Task.CHOICE,
            '<answer>{"option": "B"}</answer>',
            "`option` of the answer is 'B'; it must be one of 'blue-circle'",
        ),
        (Task.GROUNDED_QA, '<answer>{"text": " ", "start": 1, "end": 2}</answer>', "it must not be empty"),
        (Task.TRACKING, '<answer>{"boxes": [[1, 2, 3, 4]]}</answer>', "holds 1 boxes; it must hold 2"),
        (Task.TRACKING, '<answer>{"boxes": [[1, 2, 3], [1, 2, 3, 4]]}</answer>', "A box of the answer is [1, 2, 3]"),
        (Task.TRACKING, '<answer>{"boxes": [[5, 2, 3, 4], [1, 2, 3, 4]]}</answer>', "The box [5, 2, 3, 4] needs"),
        (Task.CAPTION, '<answer>{"events": "a, b"}</answer>', "`events` of the answer is 'a, b'; it must be a list"),
    ],
)
def test_a_bad_answer_says_what_is_allowed(task, text, said, sample_of):
    parsed = SPELLING.parse_answer(text, sample_of(task))
    assert (parsed.value, parsed.status) == (None, Status.INVALID_ANSWER)
    assert said in parsed.message


def test_boxes_and_events_are_read(sample_of):
    boxes = SPELLING.parse_answer(
        '<answer>{"boxes": [[1, 2, 3, 4.5], [0, 0, 0, 0]]}</answer>', sample_of(Task.TRACKING)
    )
    assert boxes.value.boxes == (Box(left=1, top=2, right=3, bottom=4.5), Box(left=0, top=0, right=0, bottom=0))
    assert SPELLING.parse_answer('<answer>{"events": []}</answer>', sample_of(Task.CAPTION)).value == Answer()
