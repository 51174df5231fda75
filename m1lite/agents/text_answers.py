"""Answers in words inside of <answer> tags, as VideoChat-R1 and VITAL ask for them: spans, letters, numbers, lists.

The shapes are those of METHODS B.1; the sentences are ours. Answers in JSON are ``json_spelling.py``'s.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from m1lite.agents.plan import Parsed, Unreadable, attempt, checked_span, number_word, read_number, required
from m1lite.metrics.functional import parse_choice
from m1lite.records import Answer, Box, Span, Status, Task
from m1lite.toolbox.arguments import shorten

if TYPE_CHECKING:
    from m1lite.records import Sample

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(?:to|and)\s*(\d{1,9}(?:\.\d{1,9})?)")
_LETTER = re.compile(r"\(?([A-Z])\)?(?:[.:)].*)?", re.DOTALL)
"""``B``, ``(B)`` or ``B. a cat``, but not the article of ``A cat``."""
_PAIR = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*,\s*(\d{1,9}(?:\.\d{1,9})?)")
_LETTER_FORM = "Reply with the letter of one option, such as <answer>B</answer>."
_SHORT_FORM = "Reply with a short answer, such as <answer>a red square</answer>."
_GLUE_FORM = "Add the spans in seconds that show it, such as <glue>[(4.5, 9.0)]</glue>."
_FORMS = {
    Task.GROUNDING: "When is it? Reply with <answer>start to end</answer> in seconds, such as "
    "<answer>12.54 to 17.83</answer>.",
    Task.CHOICE: _LETTER_FORM,
    Task.COUNTING: "Reply with a whole number, such as <answer>3</answer>.",
    Task.GROUNDED_QA: "Reply with a short answer and the span in seconds that shows it, such as "
    "<answer>a red square</answer><glue>[(4.5, 9.0)]</glue>.",
    Task.TRACKING: "Reply with one box for each time, <answer>[[left, top, right, bottom], ...]</answer>, ",
    Task.CAPTION: "Reply with the events in order, one a line, inside of <answer>...</answer>.",
}


class TextAnswers:
    """Asks for answers in words and reads them; what the policy thinks stands in <think> tags before.

    A grounded answer keeps the part that can be read where the other one cannot; its status then says that something
    is wrong. Where the question has options it is chosen from them, as in NExT-GQA.

    Args:
        think: whether to ask for thoughts first.
        timesteps: whether the thoughts are to name the moments they go by, in <timestep> tags.
        letters: whether choices are answered by letter; False asks for the option's words. Both are read.
        glue: whether grounded answers name their spans; False asks for the answer alone.
        shares: whether boxes are shares of the picture's sides, from 0 to 1, instead of pixels of the video; then
            samples must tell its size.
    """

    def __init__(
        self,
        *,
        think: bool = True,
        timesteps: bool = False,
        letters: bool = True,
        glue: bool = True,
        shares: bool = False,
    ) -> None:
        self.think = think
        self.timesteps = timesteps
        self.letters = letters
        self.glue = glue
        self.shares = shares

    def ask(self, sample: Sample) -> str:
        """Write the question, its options or times, and the form of its answer.

        Raises:
            ValueError: if boxes are asked for as shares and the sample does not tell the video's size.
        """
        lines = [sample.question]
        if self.letters:
            lines += [f"({letter}) {option}" for letter, option in zip(_LETTERS, sample.options, strict=False)]
        elif sample.options:
            lines.append(f"One of: {'; '.join(sample.options)}.")
        if sample.times:
            lines.append(f"Times: {', '.join(number_word(time) for time in sample.times)} seconds.")
        return "\n".join([*lines, *self._thoughts(), self._form(sample)])

    def write_answer(self, answer: Answer, sample: Sample) -> str:
        """Write an answer as a policy does.

        Raises:
            ValueError: if the answer lacks what the task asks for, or is none of the options.
        """
        glue = ""
        match sample.task:
            case Task.GROUNDING:
                span = required(answer.spans, "one of `spans`", sample.task)[0]
                body = f"{span.start:.2f} to {span.end:.2f}"
            case Task.CHOICE:
                body = self._choice(required(answer.text, "`text`", sample.task), sample)
            case Task.COUNTING:
                body = number_word(required(answer.number, "`number`", sample.task))
            case Task.GROUNDED_QA:
                body = required(answer.text, "`text`", sample.task)
                body = self._choice(body, sample) if sample.options else body
                spans = required(answer.spans, "one of `spans`", sample.task) if self.glue else ()
                pairs = ", ".join(f"({span.start:.2f}, {span.end:.2f})" for span in spans)
                glue = f"<glue>[{pairs}]</glue>" if self.glue else ""
            case Task.TRACKING:
                right, down = self._scale(sample)
                boxes = required(answer.boxes, "`boxes`", sample.task)
                rows = [[box.left / right, box.top / down, box.right / right, box.bottom / down] for box in boxes]
                body = json.dumps(rows)
            case Task.CAPTION:
                body = "\n".join(required(answer.events, "`events`", sample.task))
        return f"<answer>{body}</answer>{glue}"

    def parse_answer(self, text: str, sample: Sample) -> Parsed[Answer]:
        """Read the last answer block of a reply."""
        if sample.task is Task.GROUNDED_QA and self.glue:
            return _read_grounded(text, sample)
        scale = self._scale(sample) if sample.task is Task.TRACKING else (1.0, 1.0)
        return attempt(lambda reply: _read_answer(reply, sample, scale), text, Status.INVALID_ANSWER)

    def _thoughts(self) -> list[str]:
        if not self.think:
            return []
        named = " Name the moments that you go by as <timestep>start to end</timestep>." if self.timesteps else ""
        return [f"Think first, inside of <think>...</think>.{named}"]

    def _form(self, sample: Sample) -> str:
        """Word the form of the answer."""
        task = sample.task
        if task is Task.GROUNDED_QA and (sample.options or not self.glue):
            form = _LETTER_FORM if sample.options else _SHORT_FORM
            return f"{form} {_GLUE_FORM}" if self.glue else form
        if task is Task.CHOICE and not self.letters:
            return "Reply with one of these, word for word, inside of <answer>...</answer>."
        if task is Task.TRACKING:
            self._scale(sample)
            return _FORMS[task] + ("as shares of its sides from 0 to 1." if self.shares else "in pixels.")
        return _FORMS[task]

    def _choice(self, text: str, sample: Sample) -> str:
        return _LETTERS[sample.options.index(text)] if self.letters else text

    def _scale(self, sample: Sample) -> tuple[float, float]:
        """Return how many pixels are 1 to the right and 1 down in an answer."""
        if not self.shares:
            return 1.0, 1.0
        if sample.size is None:
            raise ValueError(f"Sample {sample.id!r} has no `size`, which boxes as shares need; set it in the reader.")
        height, width = sample.size
        return float(width), float(height)


def _read_answer(text: str, sample: Sample, scale: tuple[float, float]) -> Answer:
    body = _block(text, "answer")
    match sample.task:
        case Task.GROUNDING:
            found = _SPAN.findall(body)
            if not found:
                raise Unreadable(f"The answer {shorten(body)} names no span; write start to end, such as 3.5 to 9.")
            start, end = map(float, found[-1])
            return Answer(spans=(checked_span(start, end),))
        case Task.CHOICE:
            return Answer(text=_option(body, sample))
        case Task.COUNTING:
            count = read_number(body)
            if count is None or count < 0 or count != int(count):
                raise Unreadable(f"The answer {shorten(body)} must be a whole number, at least 0.")
            return Answer(number=count)
        case Task.GROUNDED_QA:
            return Answer(text=_option(body, sample) if sample.options else body)
        case Task.TRACKING:
            return Answer(boxes=_read_boxes(body, len(sample.times), scale))
        case Task.CAPTION:
            return Answer(events=tuple(line.strip() for line in body.splitlines() if line.strip()))


def _block(text: str, tag: str) -> str:
    before, _, _ = text.rpartition(f"</{tag}>")
    _, opened, block = before.rpartition(f"<{tag}>")
    if not opened or not block.strip():
        raise Unreadable(f"The reply {shorten(text.strip())} has no <{tag}>...</{tag}> block with anything in it.")
    return block.strip()


def _option(body: str, sample: Sample) -> str:
    letters = _LETTERS[: len(sample.options)]
    found = _LETTER.fullmatch(body)
    if found is not None and found[1] in letters:
        return sample.options[letters.index(found[1])]
    alike = [option for option in sample.options if option.strip().casefold() == body.casefold()]
    if len(alike) == 1:
        return alike[0]
    index = parse_choice(body, sample.options)
    if index is None:
        raise Unreadable(f"The answer {shorten(body)} must be one letter of {', '.join(letters)}.")
    return sample.options[index]


def _read_grounded(text: str, sample: Sample) -> Parsed[Answer]:
    """Read the text and the spans of a grounded answer, each by itself."""

    def read(name: str) -> Parsed[Answer]:
        def one(reply: str) -> Answer:
            body = _block(reply, name)
            if name == "glue":
                return Answer(spans=_read_spans(body))
            return Answer(text=_option(body, sample) if sample.options else body)

        return attempt(one, text, Status.INVALID_ANSWER)

    said, shown = read("answer"), read("glue")
    if said.value is None:
        return shown if shown.value is None else replace(said, value=shown.value)
    if shown.value is None:
        return replace(shown, value=said.value)
    return Parsed(value=replace(said.value, spans=shown.value.spans), status=Status.OK)


def _read_spans(glue: str) -> tuple[Span, ...]:
    pairs = _PAIR.findall(glue)
    if not pairs and "".join(glue.split()) != "[]":
        raise Unreadable(f"The span {shorten(glue)} must be a list of pairs, such as [(4.5, 9.0)].")
    return tuple(checked_span(float(start), float(end)) for start, end in pairs)


def _read_boxes(body: str, count: int, scale: tuple[float, float]) -> tuple[Box, ...]:
    form = f"The answer {shorten(body)} must be a list of {count} boxes [left, top, right, bottom]"
    try:
        rows: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreadable(f"{form}.") from None
    if not isinstance(rows, list) or len(rows) != count:
        raise Unreadable(f"{form}.")
    boxes = []
    for row in rows:
        numbers: list[Any] = row if isinstance(row, list) and len(row) == 4 else [None]
        if not all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in numbers):
            raise Unreadable(f"{form}.")
        if not (-1e9 < numbers[0] <= numbers[2] < 1e9 and -1e9 < numbers[1] <= numbers[3] < 1e9):
            raise Unreadable(f"{form}, left at most right and top at most bottom.")
        left, top, right, bottom = (float(edge) * unit for edge, unit in zip(numbers, (*scale, *scale), strict=True))
        boxes.append(Box(left=left, top=top, right=right, bottom=bottom))
    return tuple(boxes)
