"""Answers in words inside of <answer> tags, as VideoChat-R1 and VITAL ask for them: spans, letters, numbers, lists.

The shapes are those of METHODS B.1; the sentences are ours. Answers in JSON are ``json_spelling.py``'s.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from m1lite.agents.plan import Parsed, Unreadable, attempt, checked_span, number_word, read_number, required
from m1lite.records import Answer, Box, Status, Task
from m1lite.toolbox.arguments import shorten

if TYPE_CHECKING:
    from m1lite.records import Sample

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(?:to|and)\s*(\d{1,9}(?:\.\d{1,9})?)")
_LETTER = re.compile(r"\(?([A-Z])\)?(?:[.:)].*)?", re.DOTALL)
"""``B``, ``(B)`` or ``B. a cat``, but not the article of ``A cat``."""
_FORMS = {
    Task.GROUNDING: "When is it? Reply with <answer>start to end</answer> in seconds, such as "
    "<answer>12.54 to 17.83</answer>.",
    Task.CHOICE: "Reply with the letter of one option, such as <answer>B</answer>.",
    Task.COUNTING: "Reply with a whole number, such as <answer>3</answer>.",
    Task.GROUNDED_QA: "Reply with a short answer and the span in seconds that shows it, such as "
    "<answer>a red square</answer><glue>[(4.5, 9.0)]</glue>.",
    Task.TRACKING: "Reply with one box for each time, <answer>[[left, top, right, bottom], ...]</answer>, in pixels.",
    Task.CAPTION: "Reply with the events in order, one a line, inside of <answer>...</answer>.",
}


class TextAnswers:
    """Asks for answers in words and reads them; what the policy thinks stands in <think> tags before.

    Args:
        think: whether to ask for thoughts first.
    """

    def __init__(self, *, think: bool = True) -> None:
        self.think = think

    def ask(self, sample: Sample) -> str:
        """Write the question, its options or times, and the form of its answer."""
        lines = [sample.question]
        lines += [f"({letter}) {option}" for letter, option in zip(_LETTERS, sample.options, strict=False)]
        if sample.times:
            lines.append(f"Times: {', '.join(number_word(time) for time in sample.times)} seconds.")
        thoughts = ["Think first, inside of <think>...</think>."] if self.think else []
        return "\n".join([*lines, *thoughts, _FORMS[sample.task]])

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
                body = _LETTERS[sample.options.index(required(answer.text, "`text`", sample.task))]
            case Task.COUNTING:
                body = number_word(required(answer.number, "`number`", sample.task))
            case Task.GROUNDED_QA:
                span = required(answer.spans, "one of `spans`", sample.task)[0]
                body = required(answer.text, "`text`", sample.task)
                glue = f"<glue>[({span.start:.2f}, {span.end:.2f})]</glue>"
            case Task.TRACKING:
                boxes = required(answer.boxes, "`boxes`", sample.task)
                body = json.dumps([[box.left, box.top, box.right, box.bottom] for box in boxes])
            case Task.CAPTION:
                body = "\n".join(required(answer.events, "`events`", sample.task))
        return f"<answer>{body}</answer>{glue}"

    def parse_answer(self, text: str, sample: Sample) -> Parsed[Answer]:
        """Read the last answer block of a reply."""
        return attempt(partial(_read_answer, sample=sample), text, Status.INVALID_ANSWER)


def _read_answer(text: str, sample: Sample) -> Answer:
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
            return _read_grounded(body, _block(text, "glue"))
        case Task.TRACKING:
            return Answer(boxes=_read_boxes(body, len(sample.times)))
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
    if len(alike) != 1:
        raise Unreadable(f"The answer {shorten(body)} must be one letter of {', '.join(letters)}.")
    return alike[0]


def _read_grounded(body: str, glue: str) -> Answer:
    numbers = [float(word) for word in re.findall(r"\d{1,9}(?:\.\d{1,9})?", glue)]
    if len(numbers) < 2:
        raise Unreadable(f"The span {shorten(glue)} must be a list of pairs, such as [(4.5, 9.0)].")
    return Answer(text=body, spans=(checked_span(numbers[0], numbers[1]),))


def _read_boxes(body: str, count: int) -> tuple[Box, ...]:
    form = f"The answer {shorten(body)} must be a list of {count} boxes [left, top, right, bottom]"
    try:
        rows: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreadable(f"{form}.") from None
    if not isinstance(rows, list) or len(rows) != count:
        raise Unreadable(f"{form}.")
    boxes = []
    for row in rows:
        numbers = row if isinstance(row, list) and len(row) == 4 else [None]
        if not all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in numbers):
            raise Unreadable(f"{form}.")
        left, top, right, bottom = map(float, numbers)
        if not (-1e9 < left <= right < 1e9 and -1e9 < top <= bottom < 1e9):
            raise Unreadable(f"{form}, left at most right and top at most bottom.")
        boxes.append(Box(left=left, top=top, right=right, bottom=bottom))
    return tuple(boxes)
