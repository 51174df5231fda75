"""Tools that show frames spread over time: the whole video, or a window of it."""

from __future__ import annotations

import math
from typing import Annotated

from m1lite.records import ToolResult
from m1lite.toolbox.arguments import Between
from m1lite.toolbox.base import ToolContext, tool
from m1lite.toolbox.wording import NOTHING, number, window
from m1lite.video.sampling import uniform_times


@tool
def global_sampling(context: ToolContext, *, num_frames: Annotated[int, Between(1, 8)] = 4) -> ToolResult:
    """Say what a few frames spread over the whole video show.

    Args:
        context: the video.
        num_frames: how many frames.
    """
    return _describe(context, 0.0, context.duration, num_frames)


@tool
def time_step_retrieval(
    context: ToolContext, *, start: float, end: float, num_frames: Annotated[int, Between(1, 8)] = 2
) -> ToolResult:
    """Say what a few frames spread over a window of the video show.

    Args:
        context: the video.
        start: first second of the window.
        end: second at which the window ends.
        num_frames: how many frames; a window of fewer seconds shows one frame per second.
    """
    return _describe(context, *window(context.duration, start, end), num_frames)


def _describe(context: ToolContext, start: float, end: float, num_frames: int) -> ToolResult:
    times = _whole_times(start, end, num_frames)
    words = []
    for second, detections in zip(times, context.look(context.video, times), strict=True):
        words += ["t", number(second), *([detection.object for detection in detections] or [NOTHING])]
    return ToolResult(text=" ".join(words))


def _whole_times(start: float, end: float, num_frames: int) -> list[float]:
    """Evenly spread seconds in ``[start, end)``, each moved back to a whole second where the window holds it.

    Whole seconds are what the other tools and the answers speak in; two frames that fall on one become one.

    Example:
        >>> _whole_times(0, 47, 4), _whole_times(10, 11, 2), _whole_times(0.5, 0.75, 1)
        ([5, 17, 29, 41], [10], [0.625])
    """
    spread = uniform_times(start, end, num_frames)
    return list(dict.fromkeys(math.floor(second) if math.floor(second) >= start else second for second in spread))
