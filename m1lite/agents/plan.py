"""What agents write: plans, decisions and answers, and the contract of a spelling that writes and reads them.

A spelling holds all prompts and the whole grammar in one place. Two exist: compact.py (one token per word) and
json_spelling.py (for models that speak JSON). How ids are made of texts is chat.py's matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from m1lite.records import Answer, Plan, Span, Status, Task, ToolCall
from m1lite.toolbox.arguments import ToolArgumentError, shorten
from m1lite.toolbox.base import Tool, UnknownToolError, check_arguments, find_tool

if TYPE_CHECKING:
    from m1lite.records import Message, Sample

MAX_STEPS = 5
"""Calls in one plan: METHODS' call limit, so that a plan cannot ask for more than may run."""
MAX_CHARACTERS = 100_000
"""Longer replies are refused unread, which bounds the time of every parser."""

_NUMBER = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?")

T = TypeVar("T")


class Unreadable(ValueError):  # noqa: N818  (it names a state of the text, and never leaves a parser)
    """A reply that does not parse; the text says which value is wrong and what is allowed."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Parsed(Generic[T]):
    """What a parser made of a reply."""

    value: T | None
    """``None`` where the reply did not parse; for a decision also ``None`` = keep (``status`` tells them apart)."""
    status: Status
    message: str = ""
    """What was wrong, for the agent to read; empty where ``status`` is OK."""


class Spelling(Protocol):
    """How a team writes: every prompt that an agent reads and every reply that it may give.

    No parser raises for any text. ``parse(write(x))`` gives ``x`` back.
    """

    def system(self, role: str, tools: Sequence[Tool]) -> str:
        """Say who the agent is and what it can call."""

    def question(self, sample: Sample) -> str:
        """Write the first user turn: the video's duration, the question, its options or times."""

    def observation(self, own: Sequence[Message], peers: Sequence[Message], problem: str) -> str:
        """Write what is new since the agent's last turn and ask it to keep or revise the rest of its plan.

        Args:
            own: results of the agent's own calls.
            peers: plans, decisions and results of the agents that it reads.
            problem: what was wrong with its last plan or decision; empty where it was fine.
        """

    def ask_answer(self, sample: Sample, own: Sequence[Message], peers: Sequence[Message]) -> str:
        """Write what is new, restate the question and ask for the answer."""

    def write_plan(self, plan: Plan) -> str:
        """Write a plan as an agent does."""

    def write_decision(self, plan: Plan | None) -> str:
        """Write keep (``None``) or the steps that replace the rest of the plan."""

    def write_answer(self, answer: Answer, sample: Sample) -> str:
        """Write an answer to a sample's question as an agent does.

        Raises:
            ValueError: if the answer lacks what the task asks for.
        """

    def parse_plan(self, text: str, tools: Sequence[Tool]) -> Parsed[Plan]:
        """Read a plan of at most ``MAX_STEPS`` calls of these tools."""

    def parse_decision(self, text: str, tools: Sequence[Tool]) -> Parsed[Plan | None]:
        """Read keep (OK with value ``None``) or a new rest of the plan."""

    def parse_answer(self, text: str, sample: Sample) -> Parsed[Answer]:
        """Read the answer to the sample's task."""


def attempt(read: Callable[[str], T], text: str, otherwise: Status) -> Parsed[T]:
    """Read a reply and turn what is wrong with it into a status and a message.

    Args:
        read: raises ``Unreadable`` for a reply that it cannot read.
        text: the reply.
        otherwise: status of a reply that cannot be read.
    """
    try:
        if len(text) > MAX_CHARACTERS:
            raise Unreadable(f"The reply has {len(text)} characters; at most {MAX_CHARACTERS} are read.")
        return Parsed(value=read(text), status=Status.OK)
    except Unreadable as problem:
        return Parsed(value=None, status=otherwise, message=str(problem))


def checked_call(name: Any, args: Any, tools: Sequence[Tool]) -> ToolCall:
    """Make a call of one of ``tools`` with checked arguments.

    Raises:
        Unreadable: if the tool does not exist or refuses the arguments; lists what exists.
    """
    try:
        tool = find_tool(tools, name)
        return ToolCall(tool=tool.name, args=check_arguments(tool, args))
    except (UnknownToolError, ToolArgumentError) as refusal:
        raise Unreadable(str(refusal)) from None


def checked_plan(steps: Sequence[ToolCall]) -> Plan:
    """Make a plan of calls.

    Raises:
        Unreadable: if there are more than ``MAX_STEPS``.
    """
    if len(steps) > MAX_STEPS:
        raise Unreadable(f"The plan has {len(steps)} steps; at most {MAX_STEPS} are allowed.")
    return Plan(steps=tuple(steps))


def checked_span(start: float, end: float) -> Span:
    """Make a span.

    Raises:
        Unreadable: if it is reversed or starts before 0.
    """
    if not 0 <= start <= end:
        raise Unreadable(f"The span {number_word(start)} to {number_word(end)} needs 0 <= start <= end (seconds).")
    return Span(start=start, end=end)


def read_number(word: str) -> float | int | None:
    """Read a plain finite number, ``None`` where the word is none; whole ones are ``int``.

    Example:
        >>> read_number("9"), read_number("9.5"), read_number("1e999"), read_number("nan")
        (9, 9.5, None, None)
    """
    if _NUMBER.fullmatch(word) is None:
        return None
    value = float(word)
    if not math.isfinite(value):
        return None
    if word.lstrip("-").isdigit():
        return int(word)
    return value


def number_word(value: float) -> str:
    """Write a number so that :func:`read_number` gives it back; whole ones without a point.

    Example:
        >>> number_word(15.0), number_word(9.5)
        ('15', '9.5')
    """
    return str(int(value)) if value == int(value) else repr(float(value))


def required(value: T | None, what: str, task: Task) -> T:
    """Return ``value``, or raise ``ValueError`` where an answer to write lacks it."""
    if value is None or value == ():
        raise ValueError(f"An answer to a {task.value} question needs {what}, got none.")
    return value


def short_list(values: Sequence[str]) -> str:
    """Write allowed values for a message, each cut where it is long."""
    return ", ".join(shorten(value) for value in values)
