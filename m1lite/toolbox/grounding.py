"""The tool that says from when to when an object is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from m1lite.records import ToolResult
from m1lite.toolbox.base import ToolContext, tool
from m1lite.toolbox.look import sightings
from m1lite.toolbox.wording import NOTHING, check_object, window
from m1lite.video.sampling import rate_times

GROUNDING_FPS = 4.0


@tool
def grounding_tool(
    context: ToolContext, *, event: str, start: float | None = None, end: float | None = None
) -> ToolResult:
    """Say from when to when an object is seen, to the second.

    Args:
        context: the video.
        event: the object.
        start: first second of the window to search; the video's start if not given.
        end: second at which the window ends; the video's end if not given.
    """
    check_object("event", event)
    times = rate_times(*window(context.duration, start, end), GROUNDING_FPS)
    seen = sightings(context.look, context.video, times).get(event)
    return ToolResult(text=f"{event} {seen_span(seen, GROUNDING_FPS)}" if seen else NOTHING)


def seen_span(seen: Sequence[float], fps: float) -> str:
    """Write the span from the first sight to one frame after the last, rounded to whole seconds.

    Args:
        seen: ascending seconds at which an object was seen, at least one.
        fps: rate at which was looked.

    Example:
        >>> seen_span([9.0, 9.25, 9.5, 9.75], 4.0)
        '9 10'
    """
    return f"{_nearest(seen[0])} {_nearest(seen[-1] + 1 / fps)}"


def _nearest(seconds: float) -> int:
    """Round half up; ``round`` would send 0.5 and 1.5 in opposite directions."""
    return math.floor(seconds + 0.5)
