"""The tool that says where in the picture an object is."""

from __future__ import annotations

from m1lite.records import Box, ToolResult
from m1lite.toolbox.base import ToolContext, tool
from m1lite.toolbox.look import Look
from m1lite.toolbox.perception import Detection
from m1lite.toolbox.wording import NOTHING, check_object, number, window
from m1lite.video.sampling import rate_times

SPATIAL_FPS = 1.0
_LAST_FRAME_SECONDS = 0.05
"""How long before its end the video is looked at for its last frame: less than a frame lasts at 20 per second."""


@tool
def spatial_tool(
    context: ToolContext, *, question: str, start: float | None = None, end: float | None = None
) -> ToolResult:
    """Say in which lane an object is; with a start and an end also its boxes at these two seconds.

    Args:
        context: the video.
        question: the object.
        start: first second of the window to search; the video's start if not given.
        end: second at which the window ends; the video's end if not given.
    """
    check_object("question", question)
    first, last = window(context.duration, start, end)
    asked: list[float] = []
    if start is not None and end is not None:
        asked = [first, min(last, context.duration - _LAST_FRAME_SECONDS)]
    times = rate_times(first, last, SPATIAL_FPS)
    found = _find(context.look, context.video, question, [*times, *asked])
    lane = next((detection.lane for detection in found if detection is not None), None)
    if lane is None:
        return ToolResult(text=NOTHING)
    boxes = [_write(detection.box) if detection else NOTHING for detection in found[len(times) :]]
    statement = [question, *boxes] if boxes else []  # led by the object again, as every statement about one is
    return ToolResult(text=" ".join([question, lane, *statement]))


def _find(look: Look, video: str, name: str, seconds: list[float]) -> list[Detection | None]:
    """The object's detection at each second, ``None`` where it is not seen."""
    return [
        next((detection for detection in detections if detection.object == name), None)
        for detections in look(video, seconds)
    ]


def _write(box: Box) -> str:
    corners = (box.left, box.top, box.right, box.bottom)
    return " ".join(["box", *(number(round(corner)) for corner in corners)])
