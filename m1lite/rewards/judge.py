"""Judges of how an agent planned: the contract, and one that goes by rules alone. What a verdict pays is terms.py's.

The paper's judge is a language model that reads the memory; the rules here spell out its three criteria (plan
feasibility, tool appropriateness, step management) in our reading, without seeing the answer or the truth. A judge that
asks a model by the same rules is model_judge.py's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from m1lite.records import MessageKind, Status, Task, TurnKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from m1lite.records import Episode, Message, Sample, ToolCall, Trajectory

_WORD = re.compile(r"\w+(?:-\w+)*")
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a about an and are at by can do does for from has have how in is it of on or that the then there this to was "
        "were what when where which who why will with"
    )
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Verdict:
    """What a judge says of one trajectory."""

    good: bool
    reasons: tuple[str, ...] = ()
    """What speaks against it, for people to read."""


class Judge(Protocol):
    """Judges how one agent planned in one episode."""

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> Verdict | None:
        """Return the verdict, or ``None`` where the judge itself failed (never a bad verdict in its place)."""


@runtime_checkable
class AsksAhead(Protocol):
    """A judge that is faster when it is told of many trajectories at once."""

    def prepare(self, trajectories: Sequence[tuple[Episode, Trajectory]]) -> None:
        """Judge them together and remember the verdicts for the calls that follow."""


def count_calls(episode: Episode, trajectory: Trajectory) -> int:
    """Count the calls that an agent asked for in its turn: executed, and dropped at the limit."""
    dropped = sum(
        message.author == trajectory.agent and message.status is Status.CALL_LIMIT for message in episode.messages
    )
    return len(trajectory.calls) + dropped


class RuleJudge:
    """Calls a trajectory good when no rule speaks against it.

    Feasible: every plan and decision parsed, and no call was refused. Appropriate: every tool suits the task, and every
    text argument names something of the question or its options. Managed: between ``min_calls`` and ``max_calls``
    calls, and none repeated, be it the agent's own or one that a peer it reads had executed in an earlier round.

    Args:
        suits: task to the names of the tools that suit it; a task that is not named cannot be judged.
        min_calls: an agent that asked for fewer planned nothing that could be judged; 0 lets it pass.
        max_calls: calls that an agent may ask for.
        query_arguments: names of the arguments that say what to look for.
        general_words: always allowed in such an argument.

    Raises:
        ValueError: if ``suits`` names a task that does not exist; on a call, if it lacks the sample's task.
    """

    def __init__(
        self,
        suits: Mapping[str, Sequence[str]],
        *,
        min_calls: int = 1,
        max_calls: int = 5,
        query_arguments: Sequence[str] = ("query", "question", "event"),
        general_words: Sequence[str] = ("objects",),
    ) -> None:
        for task in suits:
            if task not in set(Task):
                raise ValueError(f"`suits` names the task {task!r}; there are {[known.value for known in Task]}.")
        self.suits = {Task(task): frozenset(tools) for task, tools in suits.items()}
        self.min_calls = min_calls
        self.max_calls = max_calls
        self.query_arguments = tuple(query_arguments)
        self.general_words = frozenset(general_words)

    def __call__(self, sample: Sample, episode: Episode, trajectory: Trajectory) -> Verdict:
        """Return the verdict with everything that speaks against the trajectory."""
        if sample.task not in self.suits:
            raise ValueError(
                f"`suits` says nothing of the task {sample.task.value!r} (sample {sample.id!r}); add the tools that "
                "suit it."
            )
        reasons = (
            *_infeasible(trajectory),
            *self._inappropriate(sample, trajectory),
            *self._unmanaged(episode, trajectory),
        )
        return Verdict(good=not reasons, reasons=reasons)

    def _inappropriate(self, sample: Sample, trajectory: Trajectory) -> Iterator[str]:
        named = _words(sample.question, *sample.options) | self.general_words
        for call in trajectory.calls:
            if call.tool not in self.suits[sample.task]:
                yield f"{call.tool} does not suit {sample.task.value}"
            for argument in self.query_arguments:
                text = call.args.get(argument)
                if isinstance(text, str) and not _words(text) & named:
                    yield f"{call.tool} looks for {text!r}, which the question does not name"

    def _unmanaged(self, episode: Episode, trajectory: Trajectory) -> Iterator[str]:
        asked = count_calls(episode, trajectory)
        if asked < self.min_calls:
            yield f"{asked} calls, at least {self.min_calls} needed"
        if asked > self.max_calls:
            yield f"{asked} calls, at most {self.max_calls} allowed"
        yield from _repeats(episode, trajectory)


def _infeasible(trajectory: Trajectory) -> Iterator[str]:
    for turn in trajectory.turns:
        if turn.kind is not TurnKind.ANSWER and turn.status is not Status.OK:
            yield f"{turn.kind.value} of round {turn.round}: {turn.status.value}"
    for call, result in zip(trajectory.calls, trajectory.results, strict=True):
        if result.status is Status.TOOL_ERROR:
            yield f"{call.tool} was refused: {result.error}"


def _repeats(episode: Episode, trajectory: Trajectory) -> Iterator[str]:
    peers = episode.visible.get(trajectory.agent, ())
    own: set[str] = set()
    for message in _executed(episode, trajectory.agent):
        assert message.call is not None
        key = call_key(message.call)
        if key in own:
            yield f"{key} repeats an own call"
        own.add(key)
        for peer in peers:
            earlier = (seen for seen in _executed(episode, peer) if seen.round < message.round)
            if any(seen.call is not None and call_key(seen.call) == key for seen in earlier):
                yield f"{key} repeats a call of {peer}"


def _executed(episode: Episode, agent: str) -> list[Message]:
    """List the results of an agent's calls that were run, in order."""
    return [
        message
        for message in episode.messages
        if message.author == agent
        and message.kind is MessageKind.RESULT
        and message.call is not None
        and message.status is not Status.CALL_LIMIT
    ]


def call_key(call: ToolCall) -> str:
    """Spell a call so that equal calls are equal: sorted arguments, 5.0 as 5, without case, not-given ones left out."""
    args = {name: _plain(value) for name, value in sorted(call.args.items()) if value is not None}
    return f"{call.tool} {json.dumps(args, ensure_ascii=False, default=str)}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return " ".join(value.casefold().split()) if isinstance(value, str) else value


def _words(*texts: str) -> frozenset[str]:
    """Words that carry content; an object such as ``red-square`` is one word."""
    return frozenset(word for text in texts for word in _WORD.findall(text.casefold())) - _FUNCTION_WORDS
