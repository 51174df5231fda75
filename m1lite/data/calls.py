"""Plans for the cold start: drawn blindly over tools and arguments, or made so that the results tell the answer.

The first are what is taught; the second only feed reading drills, whose plans stand outside the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from m1lite.data.evidence import subject
from m1lite.records import Plan, Task, ToolCall
from m1lite.toolbox.browsing import MAX_FINE_SECONDS
from m1lite.toolbox.perception import OBJECTS
from m1lite.toolbox.wording import ANYTHING

if TYPE_CHECKING:
    from random import Random

    from m1lite.records import Sample
    from m1lite.toolbox.arguments import Parameter
    from m1lite.toolbox.base import Tool


class Calls(Protocol):
    """Draws the plans of a teacher."""

    def plan(self, sample: Sample, tools: Sequence[Tool], rng: Random) -> Plan:
        """Draw a plan that calls some of ``tools``."""


@dataclass(kw_only=True, frozen=True)
class RandomCalls:
    """Draws plans: tools and arguments uniform over what an agent may call.

    An optional argument is given with probability 1/2, a window's start and end together, in whole seconds. A word is
    drawn from ``words``.

    Raises:
        ValueError: if a probability is not one or a count is below 1.
    """

    max_steps: int = 2
    """The number of steps is uniform from 1 to this."""
    named_probability: float = 0.5
    """Of drawing a word, or a tracking question's times, from the question and its options and not from everywhere."""
    optional_probability: float = 0.5
    """Of giving an optional argument."""
    overview_probability: float = 0.5
    """Of asking a tool that takes it about `objects`."""
    words: Sequence[str] = OBJECTS
    """All words that a tool may be asked about."""
    overview_tools: frozenset[str] = frozenset({"rough_browser", "fine_browser"})
    """The tools that may be asked about `objects`."""
    max_window_seconds: dict[str, float] = field(default_factory=lambda: {"fine_browser": MAX_FINE_SECONDS})
    """Longest window that a tool takes, where it has a limit."""

    def __post_init__(self) -> None:
        if self.max_steps < 1 or not self.words:
            raise ValueError(
                f"Need `max_steps` >= 1 and some `words`, got {self.max_steps} and {len(self.words)} words."
            )
        for name in ("named_probability", "optional_probability", "overview_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; a probability lies between 0 and 1.")

    def plan(self, sample: Sample, tools: Sequence[Tool], rng: Random) -> Plan:
        """Draw a plan."""
        steps = rng.randint(1, self.max_steps) if tools else 0
        return Plan(steps=tuple(self.call(sample, rng.choice(tools), rng) for _ in range(steps)))

    def call(self, sample: Sample, tool: Tool, rng: Random) -> ToolCall:
        """Draw the arguments of a call."""
        args: dict[str, Any] = {}
        for parameter in tool.parameters:
            if parameter.name in args or (parameter.name == "end" and "start" not in args):
                continue
            if not parameter.required and rng.random() >= self.optional_probability:
                continue
            if parameter.name == "start":
                args["start"], args["end"] = self._window(sample, tool.name, rng)
            else:
                args[parameter.name] = self._value(sample, tool.name, parameter, rng)
        return ToolCall(tool=tool.name, args=args)

    def _value(self, sample: Sample, tool: str, parameter: Parameter, rng: Random) -> Any:
        if parameter.kind is bool:
            return rng.random() < 0.5
        if parameter.choices:
            return rng.choice(parameter.choices)
        if parameter.kind is str:
            return self._word(sample, tool, rng)
        if parameter.limits is None:
            raise ValueError(f"`{parameter.name}` of `{tool}` has no limits to draw a number from; annotate `Between`.")
        return rng.randint(int(parameter.limits.low), int(parameter.limits.high))

    def _word(self, sample: Sample, tool: str, rng: Random) -> str:
        if tool in self.overview_tools and rng.random() < self.overview_probability:
            return ANYTHING
        named = [word for word in (subject(sample), *sample.options) if word != ANYTHING]
        return rng.choice(named if named and rng.random() < self.named_probability else self.words)

    def _window(self, sample: Sample, tool: str, rng: Random) -> tuple[int, int]:
        """Draw a window uniformly from those in whole seconds that the tool takes."""
        last, longest = int(sample.duration), self.max_window_seconds.get(tool, sample.duration)
        if sample.times and rng.random() < self.named_probability:
            first, end = int(min(sample.times)), int(max(sample.times))
            if 0 < end - first <= longest:
                return first, end
        while True:
            first, end = sorted(rng.sample(range(last + 1), 2))
            if end - first <= longest:
                return first, end


@dataclass(kw_only=True, frozen=True)
class TellingCalls:
    """Makes plans whose results tell the answer, as far as an agent's tools can, now and then beside a random call.

    Only the classical tools and the questions of the synthetic world are known here. The window of a fine look is put
    around the true span at random.
    """

    others: RandomCalls = field(default_factory=RandomCalls)
    """Draws the calls beside, and the plans of agents whose tools cannot tell."""
    other_probability: float = 0.5
    """Of a call beside, before or after the telling ones."""

    def plan(self, sample: Sample, tools: Sequence[Tool], rng: Random) -> Plan:
        """Make a plan; where both halves of an answer can be told, it has both."""
        telling = [tool.name for tool in tools if tool.name in _TELLING[sample.task]]
        if not telling:
            return self.others.plan(sample, tools, rng)
        chosen = telling if sample.task is Task.GROUNDED_QA else [rng.choice(telling)]
        steps = [self._call(sample, name, rng) for name in chosen]
        if rng.random() < self.other_probability:
            steps.append(self.others.call(sample, rng.choice(tools), rng))
        rng.shuffle(steps)
        return Plan(steps=tuple(steps))

    def _call(self, sample: Sample, tool: str, rng: Random) -> ToolCall:
        about = subject(sample)
        if tool == "grounding_tool":
            return ToolCall(tool=tool, args={"event": about})
        if tool == "rough_browser":
            return ToolCall(tool=tool, args={"question": ANYTHING})
        if tool == "spatial_tool":
            times = zip(("start", "end"), map(int, sample.times), strict=False)
            return ToolCall(tool=tool, args={"question": about, **dict(times)})
        start, end = _window_around(sample, rng)
        return ToolCall(tool=tool, args={"question": rng.choice((about, ANYTHING)), "start": start, "end": end})


_SPAN_TOOLS = frozenset({"grounding_tool", "fine_browser"})
_TELLING: Mapping[Task, frozenset[str]] = {
    Task.GROUNDING: _SPAN_TOOLS,
    Task.CHOICE: frozenset({"rough_browser"}),
    Task.COUNTING: frozenset({"rough_browser"}),
    Task.GROUNDED_QA: _SPAN_TOOLS | {"spatial_tool"},
    Task.TRACKING: frozenset({"spatial_tool"}),
    Task.CAPTION: frozenset({"rough_browser"}),
}


def _window_around(sample: Sample, rng: Random) -> tuple[int, int]:
    """Draw a window of a fine look that holds the true span, in whole seconds."""
    span = sample.answer.spans[0]
    length = rng.randint(min(int(MAX_FINE_SECONDS), int(span.end - span.start)), int(MAX_FINE_SECONDS))
    first = rng.randint(min(max(0, int(span.end) - length), int(span.start)), int(span.start))
    return first, min(first + length, int(sample.duration))
