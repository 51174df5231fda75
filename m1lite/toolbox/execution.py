"""One call from its arguments to a result: what a tool raises, tries again, and gives too much of.

Which calls run and when is the toolbox's matter, see base.py. A tool runs in this process: a fault of its code becomes
a result, a fault of the machine does not. What may take all memory or crash belongs into a process of its own, which
:mod:`m1lite.toolbox.mcp_client` starts and bounds.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from m1lite.records import Status, ToolResult
from m1lite.toolbox.arguments import ToolArgumentError, shorten

if TYPE_CHECKING:
    from collections.abc import Hashable

    from m1lite.toolbox.base import Tool, ToolContext

_MAX_CHARACTERS = 100_000
_MAX_FRAMES = 1024
_MAX_REASON = 2000
_FIRST_PAUSE_SECONDS = 0.1


class TransientToolError(RuntimeError):
    """A fault that may pass, raised by a tool only where making the same call again does no harm.

    The runner makes the call again within its deadline. Any other exception is final: nothing is known of what the
    tool had done before it.
    """


def execute(
    tool: Tool, context: ToolContext, args: dict[str, Any], *, tries: int, due: float
) -> tuple[ToolResult, bool]:
    """Call a tool, and again where it says that this is safe.

    Args:
        tool: what is called.
        context: what it may see.
        args: checked.
        tries: calls at most.
        due: monotonic time after which no further try begins.

    Returns:
        The result with its wall time, and whether the same call would give the same again. Never raises.
    """
    begun, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
    for left in reversed(range(tries)):
        result, lasting, again = _attempt(tool, context, args)
        if not again or not left or time.monotonic() + pause >= due:
            break
        time.sleep(pause)
        pause *= 2
    return replace(result, seconds=time.monotonic() - begun), lasting


def _attempt(tool: Tool, context: ToolContext, args: dict[str, Any]) -> tuple[ToolResult, bool, bool]:
    """Call a tool once: its result, whether it would be the same again, and whether another try is safe."""
    try:
        result = tool(context, **args)
    except ToolArgumentError as refusal:
        return _failed(str(refusal)), True, False
    # Whatever a tool raises belongs to its call; in a worker thread even SystemExit would otherwise just be lost.
    except BaseException as fault:
        reason = f"{type(fault).__name__}: {_said(fault)}"
        return (
            _failed(f"`{tool.name}` failed on {shorten(args)}: {reason}"),
            False,
            isinstance(fault, TransientToolError),
        )
    if not isinstance(result, ToolResult):
        what = f"{shorten(result)} ({type(result).__name__})"
        return _failed(f"`{tool.name}` returned {what}; a tool returns a `ToolResult`."), True, False
    problem = _excess(result)
    if problem is not None:
        return _failed(f"`{tool.name}` returned {problem}; ask for less."), True, False
    return _tidy(result), result.error is None, False


def _failed(message: str) -> ToolResult:
    return ToolResult(error=message, status=Status.TOOL_ERROR)


def _said(fault: BaseException) -> str:
    try:
        text = str(fault)
    except Exception as silent:  # an exception's own text is a tool's code too
        return f"(its text raises {type(silent).__name__})"
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."


def _excess(result: ToolResult) -> str | None:
    """Name what no agent can read and no cache should keep."""
    characters = len(result.text) + len(result.error or "")
    if characters > _MAX_CHARACTERS:
        return f"{characters} characters, above the limit of {_MAX_CHARACTERS}"
    frames = sum(len(media.timestamps) for media in result.media)
    return f"{frames} frames, above the limit of {_MAX_FRAMES}" if frames > _MAX_FRAMES else None


def _tidy(result: ToolResult) -> ToolResult:
    """Replace halves of surrogate pairs, which tokenizers and files refuse, and let no error pass for a success."""
    if result.error is not None and result.status is Status.OK:
        result = replace(result, status=Status.TOOL_ERROR)
    try:
        (result.text + (result.error or "")).encode()
    except UnicodeEncodeError:
        error = None if result.error is None else _utf8(result.error)
        return replace(result, text=_utf8(result.text), error=error)
    return result


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


class ResultCache:
    """Results of calls that are over, those not asked for longest out first. Safe for threads.

    Args:
        max_results: results kept.
        max_characters: of their texts together.
    """

    def __init__(self, *, max_results: int = 100_000, max_characters: int = 100_000_000) -> None:
        self.max_results = max_results
        self.max_characters = max_characters
        self._results: OrderedDict[Hashable, ToolResult] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._results)

    def get(self, key: Hashable) -> ToolResult | None:
        """Return what is kept of a call."""
        with self._lock:
            known = self._results.get(key)
            if known is not None:
                self._results.move_to_end(key)
            return known

    def keep(self, key: Hashable, result: ToolResult) -> None:
        """Keep a result."""
        with self._lock:
            self._forget(self._results.pop(key, None))
            self._results[key] = result
            self._characters += _length(result)
            while len(self._results) > self.max_results or self._characters > self.max_characters:
                self._forget(self._results.popitem(last=False)[1])

    def _forget(self, result: ToolResult | None) -> None:
        self._characters -= 0 if result is None else _length(result)


def _length(result: ToolResult) -> int:
    return len(result.text) + len(result.error or "")
