"""Runs coroutines that wait for replies, for tool results and for one another; nobody waits for anything else.

One thread drives them all: a coroutine goes on as soon as what it waits for is there, and its next request joins the
batch that the engines are drawing. Tools run in threads of their own meanwhile. What the coroutines do stands in
loop.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from m1lite.engines.base import Request, Sampler
    from m1lite.records import Sample, ToolCall, ToolResult

_WAIT, _SHORT_WAIT = 1.0, 0.02
"""Seconds that a remote engine may wait for a reply: while no tool runs, and while one may end."""


class Tools(Protocol):
    """What runs tool calls; ``Toolbox`` does."""

    def submit(self, calls: Sequence[tuple[Sample, ToolCall]], done: Callable[[list[ToolResult]], None]) -> None:
        """Start calls and call ``done`` once with one result for each, from any thread, perhaps before this returns."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Calls:
    """A coroutine waits for the results of calls that run side by side."""

    sample: Sample
    calls: Sequence[ToolCall]


@dataclass(slots=True, frozen=True)
class Reached:
    """A coroutine says how far it has come; it goes on at once."""

    point: int


@dataclass(slots=True, frozen=True)
class Until:
    """A coroutine waits until another one has come so far."""

    task: Task
    point: int


Waits = Generator["Request | Calls | Reached | Until", Any, None]
"""A coroutine: it yields what it waits for, and gets a ``Generation``, a list of ``ToolResult``, or nothing."""


@dataclass(slots=True, eq=False)
class Task:
    """A coroutine under way."""

    coroutine: Waits = field(init=False)
    number: int = 0
    """Its place among the tasks that run together."""
    reached: int = -1
    waiting: list[tuple[int, Task]] = field(default_factory=list)
    """Who waits for it to come how far."""


class Scheduler:
    """Drives tasks to their ends.

    Args:
        sampler: draws replies; nothing is queued there.
        tools: runs calls.
    """

    def __init__(self, sampler: Sampler, tools: Tools) -> None:
        self.sampler = sampler
        self.tools = tools
        self._ready: deque[tuple[Task, Any]] = deque()
        self._asked: dict[int, Task] = {}
        self._num_calling = 0
        self._results: SimpleQueue[tuple[Task, list[ToolResult]]] = SimpleQueue()
        self._num_running = 0

    def run(self, tasks: Sequence[Task]) -> None:
        """Run tasks to their ends.

        Raises:
            EngineError: if a request is refused or an engine fails; nothing stays queued there.
            RuntimeError: if tasks wait for one another in a circle.
        """
        for number, task in enumerate(tasks):
            task.number = number
            self._ready.append((task, None))
        self._num_running = len(tasks)
        try:
            while self._ready or self._asked or self._num_calling:
                self._take_results()
                if self._ready:
                    self._go_on()  # and look for results again: those of a cache are there already
                else:
                    self._step()
        except BaseException:
            self.sampler.abort()
            raise
        if self._num_running:
            raise RuntimeError(f"{self._num_running} of {len(tasks)} tasks wait for one another in a circle.")

    def _take_results(self) -> None:
        """Take the tool results that are there; where nothing else is to be done yet, wait for the next."""
        while self._num_calling:
            is_idle = not self._ready and (not self._asked or self.sampler.draws_together)
            try:
                self._ready.append(self._results.get(block=is_idle))
            except Empty:
                return
            self._num_calling -= 1

    def _go_on(self) -> None:
        """Let every task that can go on do so, and submit what they ask for together."""
        requests: list[tuple[Request, Task]] = []
        while self._ready:
            self._resume(*self._ready.popleft(), requests)
        # Neighbours of one policy: an adapter's product over one block of rows is faster than over scattered ones. Then
        # in the order of the tasks, so that the rows of a batch do not depend on which tool was faster.
        requests.sort(key=lambda pair: (pair[0].policy, pair[1].number))
        for request, task in requests:
            self._asked[self.sampler.submit(request)] = task

    def _resume(self, task: Task, value: Any, requests: list[tuple[Request, Task]]) -> None:
        """Run a task up to where it has to wait."""
        send = task.coroutine.send
        while True:
            try:
                wanted = send(value)
            except StopIteration:
                self._num_running -= 1
                return
            value = None
            if isinstance(wanted, Reached):
                task.reached = wanted.point
                self._wake(task)
            elif isinstance(wanted, Until):
                if wanted.task.reached < wanted.point:
                    wanted.task.waiting.append((wanted.point, task))
                    return
            elif isinstance(wanted, Calls):
                self._call(task, wanted)
                return
            else:
                requests.append((wanted, task))
                return

    def _wake(self, task: Task) -> None:
        if task.waiting:
            self._ready.extend((other, None) for point, other in task.waiting if point <= task.reached)
            task.waiting = [(point, other) for point, other in task.waiting if point > task.reached]

    def _call(self, task: Task, wanted: Calls) -> None:
        self._num_calling += 1
        self.tools.submit(
            [(wanted.sample, call) for call in wanted.calls], lambda results: self._results.put((task, results))
        )

    def _step(self) -> None:
        """Let the engines go on, and make those ready whose replies are drawn."""
        for ticket, reply in self.sampler.step(_SHORT_WAIT if self._num_calling else _WAIT):
            self._ready.append((self._asked.pop(ticket), reply))
