"""A symbolic scene: events with known times, seen through a ``look`` that notes which seconds were asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from m1lite.records import Answer, Box, Sample, Task, ToolCall, ToolResult
from m1lite.toolbox import Toolbox
from m1lite.toolbox.classical import CLASSICAL_TOOLS
from m1lite.toolbox.perception import Detection


@dataclass(frozen=True)
class Event:
    name: str
    lane: str
    start: int
    end: int

    def box(self, second: float) -> Box:
        left = {"left": 3, "middle": 24, "right": 45}[self.lane]
        top = 2 + int(2 * (second - self.start))
        return Box(left=left, top=top, right=left + 14, bottom=top + 14)


EVENTS = (
    Event("red-square", "left", 9, 15),
    Event("blue-circle", "right", 12, 20),
    Event("green-triangle", "middle", 30, 33),
    Event("yellow-diamond", "left", 40, 47),
)


def make_sample(video: str = "scene", duration: float = 47) -> Sample:
    truth = Answer(text="never read by a tool")
    return Sample(id=video, video=video, duration=duration, task=Task.COUNTING, question="count objects", answer=truth)


@dataclass
class Scene:
    """A scene and a toolbox that sees only it."""

    events: tuple[Event, ...] = EVENTS
    duration: float = 47
    seconds: list[float] = field(default_factory=list)
    """Every second that a tool looked at, in order."""

    def __post_init__(self) -> None:
        self.toolbox = Toolbox(CLASSICAL_TOOLS, look=self.look)

    def look(self, video: str, seconds: list[float]) -> list[list[Detection]]:
        assert all(0 <= second < self.duration for second in seconds)
        self.seconds += seconds
        found = []
        for second in seconds:
            shown = [event for event in self.events if event.start <= second < event.end]
            shown.sort(key=lambda event: event.box(second).left)
            found.append([Detection(object=e.name, box=e.box(second), lane=e.lane) for e in shown])
        return found

    def call(self, tool: str, **args: object) -> ToolResult:
        sample = make_sample(duration=self.duration)
        return self.toolbox.run([(sample, ToolCall(tool=tool, args=args))])[0]

    def text(self, tool: str, **args: object) -> str:
        result = self.call(tool, **args)
        assert result.error is None, result.error
        return result.text

    def error(self, tool: str, **args: object) -> str:
        result = self.call(tool, **args)
        assert result.text == ""
        assert result.status == "tool_error"
        assert result.error is not None
        return result.error


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="session")
def make_scene() -> type[Scene]:
    return Scene


@pytest.fixture(scope="session")
def make_event() -> type[Event]:
    return Event


@pytest.fixture
def sample() -> Sample:
    return make_sample()
