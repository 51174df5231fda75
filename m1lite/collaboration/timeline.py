"""When replies were drawn, engines stepped and tools ran, as a trace for Perfetto or chrome://tracing.

The sampler and the tools of a rollout are wrapped; a wrapper that does not record costs one call.
"""

from __future__ import annotations

import json
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from m1lite.collaboration.scheduler import Tools
    from m1lite.engines.base import Generation, Request, Sampler
    from m1lite.records import Sample, ToolCall, ToolResult


class Timeline:
    """Spans on tracks, in memory until they are written; it records nothing until it is told to."""

    def __init__(self) -> None:
        self.recording = False
        self._events: list[dict[str, Any]] = []
        self._tracks: dict[str, int] = {}
        self._num_overlapping = 0

    def span(self, track: str, name: str, started: float, ended: float, **values: Any) -> None:
        """Note what took place alone on its track.

        Args:
            track: of the engine, of an agent.
            name: what it was.
            started: seconds of ``time.perf_counter``.
            ended: the same.
            values: shown with the span; plain JSON values.
        """
        self._events.append(
            {
                "ph": "X",
                "name": name,
                "ts": started * 1e6,
                "dur": (ended - started) * 1e6,
                "pid": 1,
                "tid": self._track(track),
                "args": values,
            }
        )

    def overlapping(self, track: str, name: str, started: float, ended: float, **values: Any) -> None:
        """Note what took place beside others of its track."""
        self._num_overlapping += 1
        common = {"cat": track, "id": self._num_overlapping, "name": name, "pid": 1, "tid": self._track(track)}
        self._events.append({"ph": "b", "ts": started * 1e6, **common, "args": values})
        self._events.append({"ph": "e", "ts": ended * 1e6, **common})

    def _track(self, name: str) -> int:
        return self._tracks.setdefault(name, len(self._tracks) + 1)

    def write(self, path: Path) -> None:
        """Write the spans in Chrome's trace format, times from the first of them, and forget them."""
        first = min((event["ts"] for event in self._events), default=0.0)
        names = [
            {"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": track}}
            for track, number in self._tracks.items()
        ]
        events = [{**event, "ts": round(event["ts"] - first, 1)} for event in self._events]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"traceEvents": [*names, *events], "displayTimeUnit": "ms"}), encoding="utf-8")
        self._events.clear()


class TimedSampler:
    """A sampler whose steps and replies are noted, each reply from its submission on the track of its policy."""

    def __init__(self, sampler: Sampler, timeline: Timeline) -> None:
        self.sampler = sampler
        self.timeline = timeline
        self._asked: dict[int, tuple[float, Request]] = {}

    def submit(self, request: Request) -> int:
        """Queue one reply."""
        ticket = self.sampler.submit(request)
        if self.timeline.recording:
            self._asked[ticket] = perf_counter(), request
        return ticket

    def step(self, wait: float = 0.0) -> list[tuple[int, Generation]]:
        """Go on with what is queued."""
        if not self.timeline.recording:
            return self.sampler.step(wait)
        under_way, started = self.sampler.num_unfinished, perf_counter()
        drawn = self.sampler.step(wait)
        ended = perf_counter()
        self.timeline.span("engines", "step", started, ended, under_way=under_way, finished=len(drawn))
        for ticket, reply in drawn:
            if ticket in self._asked:
                since, request = self._asked.pop(ticket)
                self.timeline.overlapping(
                    request.policy,
                    "reply",
                    since,
                    ended,
                    seed=str(request.seed),  # 63 bits, more than a viewer's numbers hold
                    version=reply.policy_version,
                    read=len(request.prompt_ids),
                    sampled=len(reply.token_ids),
                )
        return drawn

    @property
    def draws_together(self) -> bool:
        """As the sampler that it watches."""
        return self.sampler.draws_together

    @property
    def num_unfinished(self) -> int:
        """How many replies are queued or under way."""
        return self.sampler.num_unfinished

    def abort(self) -> None:
        """Drop everything that is queued or under way."""
        self._asked.clear()
        self.sampler.abort()


class TimedTools:
    """Tools whose calls are noted from their submission to the last result of their step."""

    def __init__(self, tools: Tools, timeline: Timeline) -> None:
        self.tools = tools
        self.timeline = timeline

    def submit(self, calls: Sequence[tuple[Sample, ToolCall]], done: Callable[[list[ToolResult]], None]) -> None:
        """Start calls."""
        if not self.timeline.recording:
            self.tools.submit(calls, done)
            return
        started = perf_counter()

        def note(results: list[ToolResult]) -> None:
            ended = perf_counter()
            for (sample, call), result in zip(calls, results, strict=True):
                status, cached = result.status.value, result.cached
                self.timeline.overlapping(
                    "tools", call.tool, started, ended, sample=sample.id, status=status, cached=cached
                )
            done(results)

        self.tools.submit(calls, note)
