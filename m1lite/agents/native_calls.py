"""Native tool calls: ``<tool_call>{json}</tool_call>`` as Hermes and the Qwen families write them, several in a reply.

What a reply holds is read here, and what an agent reads is worded here; turns and contexts are ``native.py``'s. The
markup is the families', the sentences are ours. Answers are asked for and read by ``Answers``, see text_answers.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from m1lite.agents.plan import MAX_STEPS, Parsed, Unreadable, attempt, checked_call
from m1lite.records import Status, ToolCall
from m1lite.toolbox.arguments import shorten
from m1lite.toolbox.base import json_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m1lite.records import Answer, Sample
    from m1lite.toolbox.base import Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"
RESPONSE_OPEN, RESPONSE_CLOSE = "<tool_response>\n", "\n</tool_response>"
NO_MORE_CALLS = "You may not call tools any more."
_SPLIT = re.compile(f"({re.escape(OPEN)}|{re.escape(CLOSE)})")


class Answers(Protocol):
    """How answers are asked for, written and read; no parser raises for any text."""

    def ask(self, sample: Sample) -> str:
        """Write the question and the form of its answer."""

    def write_answer(self, answer: Answer, sample: Sample) -> str:
        """Write an answer as a policy does, for demonstrations."""

    def parse_answer(self, text: str, sample: Sample) -> Parsed[Answer]:
        """Read the answer of a reply to the sample's task."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Reply:
    """What a reply says after its thoughts."""

    calls: tuple[ToolCall, ...] = ()
    answers: bool = False
    """Whether it holds an answer block; then it holds no calls."""


def read_reply(text: str, tools: Sequence[Tool], *, max_calls: int = MAX_STEPS) -> Parsed[Reply]:
    """Read the calls of a reply, or see that it answers.

    Args:
        text: the reply without special tokens.
        tools: what may be called.
        max_calls: at most so many calls in one reply.

    Returns:
        The reply; INVALID_PLAN with the reason where a call is malformed, unknown, has other arguments than its tool
        takes or is cut in the middle, where it calls and answers at once, and where it does neither.

    Example:
        >>> read_reply("<think>Easy.</think><answer>3 to 9</answer>", []).value
        Reply(calls=(), answers=True)
    """
    return attempt(partial(_read, tools=tools, max_calls=max_calls), text, Status.INVALID_PLAN)


def write_calls(calls: Sequence[ToolCall]) -> str:
    r"""Write calls as an agent does.

    Example:
        >>> from m1lite.records import ToolCall
        >>> write_calls([ToolCall(tool="zoom", args={"start": 1})])
        '<tool_call>\n{"name": "zoom", "arguments": {"start": 1}}\n</tool_call>'
    """
    return "\n".join(
        f"{OPEN}\n{json.dumps({'name': call.tool, 'arguments': dict(call.args)}, ensure_ascii=False)}\n{CLOSE}"
        for call in calls
    )


def describe_tools(tools: Sequence[Tool]) -> str:
    """Write what can be called and how, for the system prompt; nothing where there are no tools."""
    if not tools:
        return ""
    schemas = "\n".join(json.dumps(json_schema(tool), ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nThese functions can look at the video for you; their JSON schemas stand one a line:\n"
        f"<tools>\n{schemas}\n</tools>\n\n"
        "To call one, write a JSON object with its name and arguments inside of these tags, and end your turn:\n"
        f'{OPEN}\n{{"name": "<function>", "arguments": {{"<argument>": <value>}}}}\n{CLOSE}\n'
        "Several calls may follow each other. Each is answered by what it shows."
    )


def name_tools(tools: Sequence[Tool]) -> str:
    r"""Write one call of each tool, with the names of its arguments, in place of :func:`describe_tools`.

    For policies that learn from demonstrations what the tools do, and whose context is short.

    Example:
        >>> from m1lite.toolbox.clips import clip_tool
        >>> name_tools([clip_tool("get_frames")])
        'You may call:\n<tool_call>\n{"name": "get_frames", "arguments": {"times": "..."}}\n</tool_call>'
    """
    calls = [ToolCall(tool=tool.name, args={entry.name: "..." for entry in tool.parameters}) for tool in tools]
    return f"You may call:\n{write_calls(calls)}" if calls else ""


def _read(text: str, *, tools: Sequence[Tool], max_calls: int) -> Reply:
    spoken = _after_thoughts(text)
    calls = tuple(_read_call(number, body, tools) for number, body in enumerate(_bodies(spoken), start=1))
    answers = "<answer>" in spoken
    if calls and answers:
        raise Unreadable("The reply calls a tool and answers at once; do one of them.")
    if len(calls) > max_calls:
        raise Unreadable(f"The reply holds {len(calls)} calls; at most {max_calls} are allowed.")
    if not calls and not answers:
        raise Unreadable(
            f"The reply {shorten(spoken.strip())} neither calls a tool nor answers; write {OPEN}...{CLOSE} or "
            "<answer>...</answer>."
        )
    return Reply(calls=calls, answers=answers)


def _after_thoughts(text: str) -> str:
    _, closed, after = text.rpartition("</think>")
    if not closed and "<think>" in text:
        raise Unreadable("The reply opens <think> and never closes it; close it before you call or answer.")
    return after


def _bodies(text: str) -> list[str]:
    """Return what stands inside each pair of tags."""
    bodies: list[str] = []
    inside = False
    for piece in _SPLIT.split(text):
        if piece == OPEN:
            if inside:
                raise Unreadable(f"A call opens with {OPEN} inside of another one; close each with {CLOSE}.")
            inside = True
        elif piece == CLOSE:
            if not inside:
                raise Unreadable(f"{CLOSE} closes a call that was never opened; begin it with {OPEN}.")
            inside = False
        elif inside:
            bodies.append(piece)
    if inside:
        raise Unreadable(f"The reply ends in the middle of a call; close it with {CLOSE}.")
    return bodies


def _read_call(number: int, body: str, tools: Sequence[Tool]) -> ToolCall:
    form = '{"name": "<function>", "arguments": {...}}'
    try:
        value: Any = json.loads(body)
    # A number of thousands of digits is a ValueError too; brackets nested by the thousand hit the recursion limit.
    except (ValueError, RecursionError) as fault:
        raise Unreadable(f"Call {number}, {shorten(body.strip())}, is no JSON ({fault}); write {form}.") from None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise Unreadable(f"Call {number} is {shorten(value)}; write {form}.")
    other = sorted(value.keys() - {"name", "arguments"})
    if other:
        raise Unreadable(f"Call {number} has the keys {other} besides `name` and `arguments`; write {form}.")
    try:
        return checked_call(value["name"], value.get("arguments", {}), tools)
    except Unreadable as refusal:
        raise Unreadable(f"Call {number}: {refusal}") from None
