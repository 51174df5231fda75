"""The JSON spelling: natural-language prompts, plans and decisions in JSON, answers as JSON inside <answer> tags.

The formats are our reading of VideoChat-M1, whose sources print none. A reply may think first (<think>...</think>) and
may wrap its JSON in prose or a code fence. A plan is `[{"step": 1, "tool": "...", "args": {...}}, ...]`, a decision
`{"decision": "keep"}` or `{"decision": "revise", "plan": [...]}`.
"""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from m1lite.agents.plan import (
    MAX_STEPS,
    Parsed,
    Unreadable,
    attempt,
    checked_call,
    checked_plan,
    checked_span,
    number_word,
    required,
    short_list,
)
from m1lite.records import Answer, Box, MessageKind, Plan, Status, Task
from m1lite.toolbox.arguments import shorten
from m1lite.toolbox.base import json_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.records import Message, Sample, ToolCall
    from m1lite.toolbox.base import Tool

_BRACKET = re.compile(r"[\[{]")
_MAX_STARTS = 32
"""Brackets in one reply from which JSON is tried, so that a reply full of them stays cheap."""

_SYSTEM = """{role}
You belong to a team that answers a question about one video. Nobody sees the video itself: you call tools, which \
report in text, and you read what some teammates write and find. Times are seconds from the start of the video.

Your tools, one JSON schema a line:
{tools}

First write a plan, a JSON list of at most {max_steps} calls that run one by one:
[{{"step": 1, "tool": "<name>", "args": {{"<argument>": "<value>"}}, "why": "<reason>"}}]
After each step you write {{"decision": "keep"}}, or {{"decision": "revise", "plan": [<the remaining steps>]}}.
At the end you write your own answer in the form that is asked for."""

_FORMS = {
    Task.GROUNDING: '{"start": <seconds>, "end": <seconds>}',
    Task.CHOICE: '{"option": "<the content of one option>"}',
    Task.COUNTING: '{"number": <whole number>}',
    Task.GROUNDED_QA: '{"text": "<short answer>", "start": <seconds>, "end": <seconds>}',
    Task.TRACKING: '{"boxes": [[<left>, <top>, <right>, <bottom>], ...]}',
    Task.CAPTION: '{"events": ["<event>", ...]}',
}
_NOTES = {
    Task.GROUNDED_QA: " with the span that shows it",
    Task.TRACKING: " with one box in pixels for each time",
    Task.CAPTION: " with the events in order of appearance",
}


class JsonSpelling:
    """Natural-language prompts and JSON replies, for instruction-tuned models."""

    def system(self, role: str, tools: Sequence[Tool]) -> str:
        """Say the role, the tools' schemas and the reply formats."""
        lines = "\n".join(_dumps(json_schema(tool)) for tool in tools)
        return _SYSTEM.format(role=role, tools=lines or "(none)", max_steps=MAX_STEPS).strip()

    def question(self, sample: Sample) -> str:
        """Write the duration, the question, and ask for the plan."""
        return f"The video lasts {number_word(sample.duration)} seconds.\n{_asked(sample)}\n\nWrite your plan."

    def observation(self, own: Sequence[Message], peers: Sequence[Message], problem: str) -> str:
        """Write what was wrong, the new results and peers' messages, and ask for a decision."""
        fault = [f"Your last reply could not be used: {problem}"] if problem else []
        request = "Keep the rest of your plan, or revise it? Reply with the decision in JSON."
        return "\n".join([*fault, *_news(own, peers), "", request]).lstrip()

    def ask_answer(self, sample: Sample, own: Sequence[Message], peers: Sequence[Message]) -> str:
        """Write what is new, restate the question and say the form of the answer."""
        form = f"<answer>{_FORMS[sample.task]}</answer>{_NOTES.get(sample.task, '')}"
        return "\n".join([*_news(own, peers), "", f"Answer now. {_asked(sample)}\nReply with {form}."]).lstrip()

    def write_plan(self, plan: Plan) -> str:
        """Write the calls as a JSON list."""
        return _dumps(_steps(plan))

    def write_decision(self, plan: Plan | None) -> str:
        """Write keep, or revise with the new rest."""
        return _dumps({"decision": "keep"} if plan is None else {"decision": "revise", "plan": _steps(plan)})

    def write_answer(self, answer: Answer, sample: Sample) -> str:
        """Write the answer's JSON inside its tags.

        Raises:
            ValueError: if the answer lacks what the task asks for.
        """
        return f"<answer>{_dumps(_answer_fields(answer, sample.task))}</answer>"

    def parse_plan(self, text: str, tools: Sequence[Tool]) -> Parsed[Plan]:
        """Read the first JSON list of the reply (or an object's `plan`)."""
        find = partial(_find_json, kind=list, what="plan")
        return attempt(lambda reply: _read_plan(find(_spoken(reply)), tools), text, Status.INVALID_PLAN)

    def parse_decision(self, text: str, tools: Sequence[Tool]) -> Parsed[Plan | None]:
        """Read the first JSON object of the reply."""
        return attempt(lambda reply: _read_decision(_spoken(reply), tools), text, Status.INVALID_PLAN)

    def parse_answer(self, text: str, sample: Sample) -> Parsed[Answer]:
        """Read the JSON object inside the last <answer> block."""
        return attempt(partial(_read_answer, sample=sample), text, Status.INVALID_ANSWER)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(value: float) -> float | int:
    """Whole numbers without a point."""
    return int(value) if value == int(value) else value


def _asked(sample: Sample) -> str:
    lines = [f"Question ({sample.task.value.replace('_', ' ')}): {sample.question}"]
    if sample.options:
        lines += ["Options:", *(f"- {option}" for option in sample.options)]
    if sample.times:
        lines.append(f"Times: {', '.join(number_word(time) for time in sample.times)}")
    return "\n".join(lines)


def _call(call: ToolCall) -> str:
    return f"{call.tool}({_dumps(dict(call.args))})"


def _news(own: Sequence[Message], peers: Sequence[Message]) -> list[str]:
    lines = [f"Your {_outcome(message)}" for message in own if message.kind is MessageKind.RESULT]
    for message in peers:
        if message.kind is MessageKind.RESULT:
            lines.append(f"{message.author}'s {_outcome(message)}")
        elif message.status is not Status.OK:
            lines.append(f"{message.author} wrote no valid {message.kind.value}.")
        elif message.plan is None:
            lines.append(f"{message.author} keeps its plan.")
        else:
            verb = "plans" if message.kind is MessageKind.PLAN else "changes the rest of its plan to"
            lines.append(f"{message.author} {verb} {_dumps(_steps(message.plan))}")
    return lines


def _outcome(message: Message) -> str:
    assert message.call is not None, "a result carries its call"
    verb = "found" if message.status is Status.OK else "failed"
    return f"{_call(message.call)} {verb}: {message.text}"


def _steps(plan: Plan) -> list[dict[str, Any]]:
    return [{"step": n, "tool": call.tool, "args": dict(call.args)} for n, call in enumerate(plan.steps, start=1)]


def _answer_fields(answer: Answer, task: Task) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if task is Task.CHOICE:
        fields["option"] = required(answer.text, "`text`", task)
    if task is Task.GROUNDED_QA:
        fields["text"] = required(answer.text, "`text`", task)
    if task in (Task.GROUNDING, Task.GROUNDED_QA):
        span = required(answer.spans, "one of `spans`", task)[0]
        fields |= {"start": _plain(span.start), "end": _plain(span.end)}
    if task is Task.COUNTING:
        fields["number"] = _plain(required(answer.number, "`number`", task))
    if task is Task.TRACKING:
        boxes = required(answer.boxes, "`boxes`", task)
        fields["boxes"] = [[_plain(edge) for edge in (box.left, box.top, box.right, box.bottom)] for box in boxes]
    if task is Task.CAPTION:
        fields["events"] = list(answer.events)
    return fields


def _spoken(text: str) -> str:
    """Return what follows the thoughts.

    Raises:
        Unreadable: if the thoughts never end.
    """
    _, closed, after = text.rpartition("</think>")
    if not closed and "<think>" in text:
        raise Unreadable("The reply opens <think> and never closes it; close it and write the JSON after it.")
    return after


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word} is not finite")
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)


def _find_json(text: str, kind: type[list[Any]] | type[dict[str, Any]], what: str) -> Any:
    """Return the first JSON value of a kind in a text; an object with the key ``what`` serves as its list."""
    position, problem = 0, ""
    for _ in range(_MAX_STARTS):
        start = _BRACKET.search(text, position)
        if start is None:
            break
        position = start.start()
        try:
            value, position = _DECODER.raw_decode(text, position)
        # A number of thousands of digits is a ValueError too; brackets nested by the thousand hit the recursion limit.
        except (ValueError, RecursionError) as fault:
            problem = problem or f" ({shorten(str(fault))})"
            position += 1
            continue
        if kind is list and isinstance(value, dict) and isinstance(value.get(what), list):
            return value[what]
        if isinstance(value, kind):
            return value
    form = "list" if kind is list else "object"
    got = shorten(text.strip())
    raise Unreadable(f"The reply {got} holds no readable JSON {form}{problem}; write the {what} as one.")


def _read_plan(value: Sequence[Any], tools: Sequence[Tool]) -> Plan:
    if len(value) > MAX_STEPS:
        raise Unreadable(f"The plan has {len(value)} steps; at most {MAX_STEPS} are allowed.")
    steps = []
    for number, step in enumerate(value, start=1):
        if not isinstance(step, dict) or not isinstance(step.get("tool"), str):
            raise Unreadable(f'Step {number} is {shorten(step)}; write {{"tool": "<name>", "args": {{...}}}}.')
        steps.append(checked_call(step["tool"], step.get("args", {}), tools))
    return checked_plan(steps)


def _read_decision(text: str, tools: Sequence[Tool]) -> Plan | None:
    value = _find_json(text, dict, "decision")
    decision = value.get("decision")
    if decision == "keep":
        return None
    if decision != "revise":
        raise Unreadable(f"The decision is {shorten(decision)}; it must be 'keep' or 'revise'.")
    plan = value.get("plan")
    if not isinstance(plan, list):
        raise Unreadable(f"The revised plan is {shorten(plan)}; it must be a list of the remaining steps.")
    return _read_plan(plan, tools)


def _read_answer(text: str, sample: Sample) -> Answer:
    before, _, _ = _spoken(text).rpartition("</answer>")
    _, opened, block = before.rpartition("<answer>")
    if not opened:
        got = shorten(text.strip())
        raise Unreadable(f"The reply {got} has no <answer>...</answer> block; write the answer inside one.")
    fields = _find_json(block, dict, "answer")
    match sample.task:
        case Task.GROUNDING:
            return Answer(spans=(_span(fields),))
        case Task.CHOICE:
            return Answer(text=_option(fields, sample.options))
        case Task.COUNTING:
            return Answer(number=_count(fields))
        case Task.GROUNDED_QA:
            return Answer(text=_text(fields.get("text"), "text"), spans=(_span(fields),))
        case Task.TRACKING:
            return Answer(boxes=_boxes(fields, len(sample.times)))
        case Task.CAPTION:
            events = _of_kind(fields.get("events"), list, "`events`", "a list of texts")
            return Answer(events=tuple(_text(event, "events") for event in events))


def _of_kind(value: Any, kind: type | tuple[type, ...], name: str, form: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Unreadable(f"{name} of the answer is {shorten(value)}; it must be {form}.")
    return value


def _number(value: Any, name: str) -> float:
    number = _of_kind(value, (int, float), f"`{name}`", "a number")
    if abs(number) >= 10**20:
        raise Unreadable(f"`{name}` of the answer is {shorten(value)}; it must be a number below 1e20.")
    return number


def _text(value: Any, name: str) -> str:
    text = _of_kind(value, str, f"`{name}`", "a text").strip()
    if not text:
        raise Unreadable(f"`{name}` of the answer is {shorten(value)}; it must not be empty.")
    return text


def _span(fields: dict[str, Any]) -> Any:
    return checked_span(_number(fields.get("start"), "start"), _number(fields.get("end"), "end"))


def _option(fields: dict[str, Any], options: Sequence[str]) -> str:
    given = _text(fields.get("option"), "option")
    if given in options:
        return given
    alike = [option for option in options if option.strip().casefold() == given.casefold()]
    if len(alike) != 1:
        raise Unreadable(f"`option` of the answer is {shorten(given)}; it must be one of {short_list(options)}.")
    return alike[0]


def _count(fields: dict[str, Any]) -> float:
    number = _number(fields.get("number"), "number")
    if number < 0 or number != int(number):
        raise Unreadable(f"`number` of the answer is {number_word(number)}; it must be whole and at least 0.")
    return number


def _boxes(fields: dict[str, Any], count: int) -> tuple[Box, ...]:
    rows = _of_kind(fields.get("boxes"), list, "`boxes`", f"a list of {count} boxes")
    if len(rows) != count:
        raise Unreadable(f"`boxes` of the answer holds {len(rows)} boxes; it must hold {count}, one for each time.")
    boxes = []
    for row in rows:
        edges = _of_kind(row, list, "A box", "a list [left, top, right, bottom]")
        if len(edges) != 4:
            raise Unreadable(f"A box of the answer is {shorten(row)}; it must be [left, top, right, bottom].")
        left, top, right, bottom = (_number(edge, "boxes") for edge in edges)
        if left > right or top > bottom:
            raise Unreadable(f"The box {shorten(row)} needs left <= right and top <= bottom.")
        boxes.append(Box(left=left, top=top, right=right, bottom=bottom))
    return tuple(boxes)
