"""What a tool is: a typed, documented function of a video that gives text, and the toolbox that runs many calls.

The arguments' reading stands in arguments.py, the execution of one call in execution.py, threads and deadlines in
workers.py, the tools one file per family.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Full, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from m1lite.records import Sample, Status, ToolCall, ToolResult
from m1lite.toolbox.arguments import Parameter, ToolArgumentError, check_values, read_parameters, shorten
from m1lite.toolbox.execution import ResultCache, execute
from m1lite.toolbox.workers import Workers

if TYPE_CHECKING:
    from m1lite.toolbox.look import Look
    from m1lite.video.cache import FrameCache

_MAX_HANGING = 8
"""Overdue executions of one tool, each of which holds a thread that nobody can stop."""
_COUNTS = ("executed", "joined", "cached", "refused", "timeout")
_Answer = tuple[str, ToolResult]
"""How a call was answered, one of the above, and with what."""

RunTools = Callable[[Sequence[tuple[Sample, ToolCall]]], list[ToolResult]]
"""Runs calls, one result for each, in the order given."""


class UnknownToolError(LookupError):
    """A tool name that does not exist; the text lists the names that do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool may see of a question: its video, never the question's answer."""

    video: str
    duration: float
    """Seconds."""
    frames: FrameCache | None
    """Decoded pixels; ``None`` where scenes are symbolic."""
    look: Look
    """The objects in the frames shown at given seconds of a video."""


class Tool(Protocol):
    """What agents can call."""

    @property
    def name(self) -> str:
        """The word that calls it."""

    @property
    def description(self) -> str:
        """What it does, as agents read it."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its arguments, in signature order."""

    def __call__(self, context: ToolContext, **args: Any) -> ToolResult:
        """Run on checked arguments.

        Raises:
            ToolArgumentError: if the arguments do not fit this video.
        """


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A ``Tool`` made of a function."""

    function: Callable[..., ToolResult]
    name: str
    description: str
    parameters: tuple[Parameter, ...]

    def __call__(self, context: ToolContext, **args: Any) -> ToolResult:
        """Run the function."""
        return self.function(context, **args)

    def __repr__(self) -> str:
        return f"FunctionTool({self.name}: {' '.join(parameter.name for parameter in self.parameters)})"


def tool(function: Callable[..., ToolResult]) -> FunctionTool:
    """Make a tool of a typed, documented function or method; its name, schema and checks come from there.

    Args:
        function: ``f(context, *, query: str, top_k: int = 1) -> ToolResult``. Its docstring says what it does and has
            an ``Args`` line for each argument; an optional one has a default, and ``None`` means not given.

    Raises:
        TypeError: if the signature or the docstring cannot be read; names the tool and the argument.
    """
    description, parameters = read_parameters(function)
    return FunctionTool(function, function.__name__, description, parameters)


def json_schema(tool: Tool) -> dict[str, Any]:
    """Describe a tool in the form that OpenAI-style chat templates and endpoints take."""
    parameters = {
        "type": "object",
        "properties": {parameter.name: parameter.schema for parameter in tool.parameters},
        "required": [parameter.name for parameter in tool.parameters if parameter.required],
        "additionalProperties": False,
    }
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def check_arguments(tool: Tool, args: Any) -> dict[str, Any]:
    """Check the arguments of one call against the tool's signature.

    Args:
        tool: the tool that is called.
        args: argument name to plain JSON value; ``None`` counts as not given.

    Returns:
        Only the arguments that were given, in signature order; numbers that are whole are ``int``.

    Raises:
        ToolArgumentError: if an argument is unknown, missing or wrong; names it, the value and what is allowed.
    """
    return check_values(tool.name, {parameter.name: parameter for parameter in tool.parameters}, args)


def find_tool(tools: Sequence[Tool], name: str) -> Tool:
    """Return the tool of this name.

    Raises:
        UnknownToolError: if there is none; lists the names that exist.
    """
    for candidate in tools:
        if candidate.name == name:
            return candidate
    raise _unknown(name, [candidate.name for candidate in tools])


class Toolbox:
    """Runs calls of many episodes: argument checks, a cache of results, threads and a deadline.

    Equal calls (same tool, arguments and video) share one execution and one result, whoever asked. A call that misses
    its deadline goes on in a spare thread: asked again meanwhile it is a timeout at once, later its result is there.
    A tool of which eight calls hang is not called any more until one of them ends.

    Args:
        tools: with distinct names.
        frames: decodes videos; may be left out where ``look`` needs no pixels.
        look: the objects in the frames shown at given seconds; by default perceived from decoded pixels.
        deadline_seconds: time that one call may run, all its tries together.
        workers: calls that run at the same time.
        max_waiting: calls that wait for a worker; one more is an error result.
        tries: of a call whose tool raises ``TransientToolError``, which says that another try is safe.

    Raises:
        ValueError: if two tools share a name, neither ``frames`` nor ``look`` is given, or a limit is too small.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        frames: FrameCache | None = None,
        *,
        look: Look | None = None,
        deadline_seconds: float = 30.0,
        workers: int = 2,
        max_waiting: int = 10_000,
        tries: int = 3,
    ) -> None:
        if tries < 1:
            raise ValueError(f"`tries` must be at least 1, got {tries}.")
        names = [tool.name for tool in tools]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"`tools` holds {repeated} more than once; give every tool its own name.")
        self._tools = dict(zip(names, tools, strict=True))
        self._parameters = {tool.name: {entry.name: entry for entry in tool.parameters} for tool in tools}
        self.frames = frames
        self._look = look if look is not None else _perception(frames)
        self._workers: Workers[_Answer] = Workers(
            num_workers=workers, deadline_seconds=deadline_seconds, max_queued=max_waiting
        )
        self._tries = tries
        self._results = ResultCache()
        self._due: dict[str, list[float]] = {name: [] for name in names}  # of what runs, in monotonic time
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._lock = Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' names, in the order given."""
        return tuple(self._tools)

    def __getitem__(self, name: str) -> Tool:
        """Return a tool by name.

        Raises:
            UnknownToolError: if there is none; lists the names that exist.
        """
        found = self._tools.get(name) if isinstance(name, str) else None  # model text may hold anything in its place
        if found is None:
            raise _unknown(name, self.names)
        return found

    @property
    def counts(self) -> dict[str, int]:
        """Calls so far by how they were answered.

        ``executed``: by a run of the tool; ``joined``: by an equal call's run, which was under way; ``cached``: by a
        kept result; ``refused``: their tool or arguments do not exist or fit; ``timeout``: their deadline passed.
        """
        with self._lock:
            return dict(self._counts)

    def __repr__(self) -> str:
        return f"Toolbox({', '.join(self.names)})"

    def schema(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the JSON schemas of some tools.

        Raises:
            UnknownToolError: if one does not exist; lists the names that do.
        """
        return [json_schema(self[name]) for name in names]

    def run(self, calls: Sequence[tuple[Sample, ToolCall]]) -> list[ToolResult]:
        """Run calls side by side and wait for all of them.

        Returns:
            One result per call, in the order given. A refused argument, an exception in a tool and a missed deadline
            are results too (``Status.TOOL_ERROR``, ``Status.TOOL_TIMEOUT``); a tool's fault never raises.
        """
        ended: SimpleQueue[list[ToolResult]] = SimpleQueue()
        self.submit(calls, ended.put)
        return ended.get()

    def submit(self, calls: Sequence[tuple[Sample, ToolCall]], done: Callable[[list[ToolResult]], None]) -> None:
        """Start calls and return.

        Args:
            calls: they run side by side.
            done: called once, with what :meth:`run` returns, when the last call has ended; from a thread of the tools,
                or before this returns where nothing had to run.
        """
        results: list[ToolResult | None] = [None] * len(calls)
        missing = [len(calls)]

        def keep(place: int, result: ToolResult) -> None:
            with self._lock:
                results[place] = result
                missing[0] -= 1
                if missing[0]:
                    return
            done([result for result in results if result is not None])

        if not calls:
            done([])
        for place, (sample, call) in enumerate(calls):
            self._start(sample, call, partial(keep, place))

    def _start(self, sample: Sample, call: ToolCall, keep: Callable[[ToolResult], None]) -> None:
        """Answer a call from the cache or refuse it, else hand it to the workers (or join an equal one there)."""
        try:
            tool = self[call.tool]
            args = check_values(tool.name, self._parameters[tool.name], call.args)
        except (UnknownToolError, ToolArgumentError) as refusal:
            self._count("refused")
            keep(_error(str(refusal)))
            return
        full = tuple(_hashable(args.get(entry.name, entry.default)) for entry in tool.parameters)
        key = (tool.name, sample.video, sample.duration, *full)
        known = self._results.get(key)
        if known is not None:
            self._count("cached")
            keep(_from_cache(known))
            return
        context = ToolContext(video=sample.video, duration=sample.duration, frames=self.frames, look=self._look)
        job = partial(self._execute, key, tool, context, args)
        try:
            self._workers.submit(key, job, lambda found, shared: keep(self._told(key, found, shared)))
        except Full:
            self._count("refused")
            keep(_error(f"`{tool.name}` was not called: too many calls wait already (`max_waiting`); try again later."))

    def _told(self, key: tuple[Any, ...], answer: _Answer | None, shared: bool) -> ToolResult:
        if answer is not None:
            how, result = answer
            self._count("joined" if shared and how == "executed" else how)
            return _from_cache(result) if shared else result
        self._count("timeout")
        limit = self._workers.deadline_seconds
        message = f"`{key[0]}` did not finish within its deadline of {limit:g} s; ask for a shorter window."
        return ToolResult(error=message, status=Status.TOOL_TIMEOUT, seconds=limit)

    def _execute(self, key: tuple[Any, ...], tool: Tool, context: ToolContext, args: dict[str, Any]) -> _Answer:
        now = time.monotonic()
        due = now + self._workers.deadline_seconds
        with self._lock:
            running = self._due[tool.name]
            if sum(moment <= now for moment in running) >= _MAX_HANGING:
                message = f"`{tool.name}` was not called: {_MAX_HANGING} calls of it hang; use another tool."
                return "refused", _error(message)
            running.append(due)
        try:
            result, lasting = execute(tool, context, args, tries=self._tries, due=due)
        finally:
            with self._lock:
                running.remove(due)
        if lasting:
            self._results.keep(key, result)
        return "executed", result

    def _count(self, answered: str) -> None:
        with self._lock:
            self._counts[answered] += 1


class DirectTools:
    """Tools made of a function that runs calls: they run at once, in the thread that asks.

    Args:
        run: runs calls, one result for each.
    """

    def __init__(self, run: RunTools) -> None:
        self.run = run

    def submit(self, calls: Sequence[tuple[Sample, ToolCall]], done: Callable[[list[ToolResult]], None]) -> None:
        """Run calls and hand over their results."""
        done(self.run(calls))


def _error(message: str) -> ToolResult:
    return ToolResult(error=message, status=Status.TOOL_ERROR)


def _hashable(value: Any) -> Any:
    """Make one part of a call's key; only arguments under a schema from outside are lists or objects."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _from_cache(result: ToolResult) -> ToolResult:
    return ToolResult(text=result.text, error=result.error, status=result.status, media=result.media, cached=True)


def _perception(frames: FrameCache | None) -> Look:
    if frames is None:
        raise ValueError(
            "`Toolbox` needs `frames` to decode videos from, or `look` to see objects without them; got neither."
        )
    from m1lite.toolbox.look import Perception  # here, so that the contract of a tool loads no torch

    return Perception(frames)


def _unknown(name: Any, existing: Sequence[str]) -> UnknownToolError:
    return UnknownToolError(f"There is no tool {shorten(name)}; there are {', '.join(existing) or 'none'}.")
