"""The compact spelling: words separated by blanks, positional arguments, one token per word in the tiny world.

    system       tools grounding_tool video_retrieval global_sampling
    question     video 47 : next red-square ? blue-circle green-square red-circle blue-square
    plan         grounding_tool red-square ; rough_browser objects 10 30           (`none` = no step)
    observation  me : grounding_tool red-square = red-square 9 15 | bea : rough_browser red-square = seen 0 | keep ?
    decision     keep / revise rough_browser objects / revise none
    ask_answer   bea : rough_browser red-square 0 20 = seen 1 red-square | answer : when red-square
    answer       red-square 9 15 / red-square blue-circle / 4 / red-square left red-square 9 15 /
                 red-square box 3 4 9 10 box 5 4 11 10 / seen 2 red-square blue-circle

Peers' plans and decisions are not repeated, because their result lines carry the calls. Everything that is named is
one word: blanks in a text become hyphens. An optional argument left out before one that is given is the word `none`.
An answer is a statement as results make it, about an object led by the question's last word: then all reading is to go
on as the results go on after that word, which a model of two layers learns. Bare answers were learnt per task, and
reading a list of objects not at all.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from m1lite.agents.plan import (
    Parsed,
    Unreadable,
    attempt,
    checked_call,
    checked_plan,
    checked_span,
    number_word,
    read_number,
    required,
    short_list,
)
from m1lite.records import Answer, Box, MessageKind, Plan, Status, Task
from m1lite.toolbox.arguments import shorten
from m1lite.toolbox.base import UnknownToolError, find_tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.records import Message, Sample, ToolCall
    from m1lite.toolbox.arguments import Parameter
    from m1lite.toolbox.base import Tool

_NONE, _THEN, _NEXT = "none", ";", " | "
_BOX, _SEEN = "box", "seen"
_MARKS = frozenset({_NONE, _THEN, "|", ":", "=", "?"})


class CompactSpelling:
    """Words in a fixed order, for small models with a word-level tokenizer.

    Args:
        tools: every tool of the team, also those that only peers have: their signatures put the arguments of calls in
            order.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._parameters = {tool.name: tool.parameters for tool in tools}

    def system(self, role: str, tools: Sequence[Tool]) -> str:
        """List the agent's tools; the role has no words here."""
        return " ".join(["tools", *(tool.name for tool in tools)])

    def question(self, sample: Sample) -> str:
        """Write the duration and the question."""
        return f"video {number_word(sample.duration)} : {_asked(sample)}"

    def observation(self, own: Sequence[Message], peers: Sequence[Message], problem: str) -> str:
        """Write the new results, `me : invalid` after a reply that did not parse, and `keep ?`."""
        fault = ["me : invalid"] if problem else []
        return _NEXT.join([*fault, *self._results(own, peers), "keep ?"])

    def ask_answer(self, sample: Sample, own: Sequence[Message], peers: Sequence[Message]) -> str:
        """Write the new results and `answer :` with the question, whose options and times stand in the first turn.

        So the question's object is the last word before the reply: a small model need not look for it.
        """
        return _NEXT.join([*self._results(own, peers), f"answer : {sample.question}"])

    def write_plan(self, plan: Plan) -> str:
        """Write the calls in order."""
        return f" {_THEN} ".join(self._write_call(call) for call in plan.steps) or _NONE

    def write_decision(self, plan: Plan | None) -> str:
        """Write `keep`, or `revise` with the new rest."""
        return "keep" if plan is None else f"revise {self.write_plan(plan)}"

    def write_answer(self, answer: Answer, sample: Sample) -> str:
        """Write the words that the task asks for.

        Raises:
            ValueError: if the answer lacks them.
        """
        task = sample.task
        match task:
            case Task.GROUNDING:
                return f"{_subject(sample)} {_span_words(answer, task)}"
            case Task.CHOICE:
                return f"{_subject(sample)} {_word(required(answer.text, '`text`', task))}"
            case Task.COUNTING:
                return number_word(required(answer.number, "`number`", task))
            case Task.GROUNDED_QA:
                text = _word(required(answer.text, "`text`", task))
                return f"{_subject(sample)} {text} {_subject(sample)} {_span_words(answer, task)}"
            case Task.TRACKING:
                return " ".join([_subject(sample), *map(_box_words, required(answer.boxes, "`boxes`", task))])
            case Task.CAPTION:
                return " ".join([_SEEN, number_word(len(answer.events)), *map(_word, answer.events)])

    def parse_plan(self, text: str, tools: Sequence[Tool]) -> Parsed[Plan]:
        """Read calls separated by `;`, or `none`."""
        return attempt(lambda reply: _read_plan(reply.split(), tools), text, Status.INVALID_PLAN)

    def parse_decision(self, text: str, tools: Sequence[Tool]) -> Parsed[Plan | None]:
        """Read `keep`, or `revise` and a plan."""
        return attempt(lambda reply: _read_decision(reply.split(), tools), text, Status.INVALID_PLAN)

    def parse_answer(self, text: str, sample: Sample) -> Parsed[Answer]:
        """Read the words of the sample's task."""
        read = partial(_READERS[sample.task], sample=sample)
        return attempt(lambda reply: read(reply.split()), text, Status.INVALID_ANSWER)

    def _results(self, own: Sequence[Message], peers: Sequence[Message]) -> list[str]:
        lines = [self._line("me", message) for message in own if message.kind is MessageKind.RESULT]
        return lines + [self._line(message.author, message) for message in peers if message.kind is MessageKind.RESULT]

    def _line(self, author: str, message: Message) -> str:
        assert message.call is not None, "a result carries its call"
        text = message.text if message.status is Status.OK else "error"
        return f"{author} : {self._write_call(message.call)} = {text}"

    def _write_call(self, call: ToolCall) -> str:
        if call.tool not in self._parameters:
            known = ", ".join(self._parameters)
            raise LookupError(f"`CompactSpelling` got no tool {call.tool!r}, only {known}; give it the whole team's.")
        words, given = [call.tool], 1
        for parameter in self._parameters[call.tool]:
            value = call.args.get(parameter.name)
            words.append(_NONE if value is None else _value_word(value))
            given = given if value is None else len(words)
        return " ".join(words[:given])


def _word(text: str) -> str:
    """Make one word of a text; a mark of the grammar inside becomes a hyphen."""
    return "-".join(text.replace(_THEN, " ").split()) or "-"


def _value_word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return number_word(value) if isinstance(value, int | float) else _word(str(value))


def _span_words(answer: Answer, task: Task) -> str:
    span = required(answer.spans, "one of `spans`", task)[0]
    return f"{number_word(span.start)} {number_word(span.end)}"


def _box_words(box: Box) -> str:
    return " ".join([_BOX, *map(number_word, (box.left, box.top, box.right, box.bottom))])


def _asked(sample: Sample) -> str:
    parts = [sample.question]
    if sample.options:
        parts += ["?", *(_word(option) for option in sample.options)]
    if sample.times:
        parts += ["t", *(number_word(time) for time in sample.times)]
    return " ".join(parts)


def _subject(sample: Sample) -> str:
    """Return what the question is about: its last word."""
    return _word((sample.question.split() or [""])[-1])


def _read_plan(words: Sequence[str], tools: Sequence[Tool]) -> Plan:
    if not words:
        raise Unreadable(f"The plan is empty; write calls separated by `;`, or `{_NONE}`.")
    if list(words) == [_NONE]:
        return Plan()
    steps: list[list[str]] = [[]]
    for word in words:
        if word == _THEN:
            steps.append([])
        else:
            steps[-1].append(word)
    return checked_plan([_read_call(step, tools) for step in steps])


def _read_call(words: Sequence[str], tools: Sequence[Tool]) -> ToolCall:
    if not words:
        raise Unreadable(f"A step is empty; write one call on each side of `{_THEN}`.")
    name, *values = words
    try:
        parameters = find_tool(tools, name).parameters
    except UnknownToolError as refusal:
        raise Unreadable(str(refusal)) from None
    if len(values) > len(parameters):
        surplus = shorten(values[len(parameters)])
        listing = " ".join(entry.name if entry.required else f"[{entry.name}]" for entry in parameters)
        raise Unreadable(f"`{name}` takes at most {len(parameters)} arguments ({listing}), {surplus} is one too many.")
    pairs = zip(parameters, values, strict=False)
    args = {entry.name: _read_value(entry, word) for entry, word in pairs if entry.required or word != _NONE}
    return checked_call(name, args, tools)


def _read_value(parameter: Parameter, word: str) -> Any:
    """Give a word its type; a word that has not the type stays a text, which the tool's check then refuses by name."""
    if parameter.kind is bool:
        return {"true": True, "false": False}.get(word, word)
    if parameter.kind is str:
        return word
    number = read_number(word)
    return word if number is None else number


def _read_decision(words: Sequence[str], tools: Sequence[Tool]) -> Plan | None:
    if list(words) == ["keep"]:
        return None
    if not words or words[0] != "revise":
        got = shorten(" ".join(words))
        raise Unreadable(f"The decision is {got}; write `keep`, or `revise` and the remaining calls.")
    return _read_plan(words[1:], tools)


def _read_numbers(words: Sequence[str], count: int, form: str) -> list[float]:
    numbers = [number for number in map(read_number, words[: count + 1]) if number is not None]
    if len(words) != count or len(numbers) != count:
        raise Unreadable(f"The answer is {shorten(' '.join(words))}; write {form}.")
    return numbers


def _read_name(words: Sequence[str], form: str) -> str:
    if len(words) != 1 or words[0] in _MARKS or read_number(words[0]) is not None:
        raise Unreadable(f"The answer names {shorten(' '.join(words))}; write {form}.")
    return words[0]


def _read_grounding(words: Sequence[str], sample: Sample) -> Answer:
    subject = _subject(sample)
    form = f"{subject} and two numbers, start and end in seconds"
    start, end = _read_numbers(_after(words, subject, form), 2, form)
    return Answer(spans=(checked_span(start, end),))


def _after(words: Sequence[str], subject: str, form: str) -> Sequence[str]:
    """Take the question's last word off the front of a statement."""
    if not words or words[0] != subject:
        raise Unreadable(f"The answer is {shorten(' '.join(words))}; write {form}.")
    return words[1:]


def _read_choice(words: Sequence[str], sample: Sample) -> Answer:
    contents = {_word(option): option for option in sample.options}
    if len(words) != 2 or words[0] != _subject(sample) or words[1] not in contents:
        got, choices = shorten(" ".join(words)), short_list(list(contents))
        raise Unreadable(f"The answer is {got}; write {_subject(sample)} and then one of {choices}.")
    return Answer(text=contents[words[1]])


def _read_counting(words: Sequence[str], sample: Sample) -> Answer:
    (number,) = _read_numbers(words, 1, "one whole number")
    if number < 0 or number != int(number):
        raise Unreadable(f"The answer is {number_word(number)}; write one whole number, at least 0.")
    return Answer(number=number)


def _read_grounded_qa(words: Sequence[str], sample: Sample) -> Answer:
    subject = _subject(sample)
    form = f"{subject} and one word, then {subject} again with start and end in seconds"
    rest = _after(words, subject, form)
    start, end = _read_numbers(_after(rest[1:], subject, form), 2, form)
    return Answer(text=_read_name(rest[:1], form), spans=(checked_span(start, end),))


def _read_tracking(words: Sequence[str], sample: Sample) -> Answer:
    subject, count = _subject(sample), len(sample.times)
    form = f"{subject}, and for each of {count} times `{_BOX}` with left, top, right and bottom"
    rest = _after(words, subject, form)
    if list(rest[::5]) != [_BOX] * count:
        raise Unreadable(f"The answer is {shorten(' '.join(words))}; write {form}.")
    corners = _read_numbers([word for index, word in enumerate(rest) if index % 5], 4 * count, form)
    boxes = []
    for left, top, right, bottom in zip(*[iter(corners)] * 4, strict=True):
        if left > right or top > bottom:
            box = " ".join(map(number_word, (left, top, right, bottom)))
            raise Unreadable(f"The box {box} needs left <= right and top <= bottom.")
        boxes.append(Box(left=left, top=top, right=right, bottom=bottom))
    return Answer(boxes=tuple(boxes))


def _read_caption(words: Sequence[str], sample: Sample) -> Answer:
    form = f"`{_SEEN}`, how many events there are, and the events in order, one word each"
    count = read_number(words[1]) if len(words) > 1 else None
    events = [_read_name([word], form) for word in words[2:]]
    if list(words[:1]) != [_SEEN] or count != len(events):
        raise Unreadable(f"The answer is {shorten(' '.join(words))}; write {form}.")
    return Answer(events=tuple(events))


_READERS = {
    Task.GROUNDING: _read_grounding,
    Task.CHOICE: _read_choice,
    Task.COUNTING: _read_counting,
    Task.GROUNDED_QA: _read_grounded_qa,
    Task.TRACKING: _read_tracking,
    Task.CAPTION: _read_caption,
}
