"""Tools that find an object: the clips that show it most, or a frame that shows it."""

from __future__ import annotations

from typing import Annotated

from m1lite.records import ToolResult
from m1lite.toolbox.arguments import Between
from m1lite.toolbox.base import ToolContext, tool
from m1lite.toolbox.look import sightings
from m1lite.toolbox.wording import NOTHING, check_object, number, window
from m1lite.video.sampling import clip_windows, rate_times

CLIP_SECONDS = 8
RETRIEVAL_FPS = 1.0


@tool
def video_retrieval(context: ToolContext, *, query: str, top_k: Annotated[int, Between(1, 8)] = 1) -> ToolResult:
    """Find the clip of eight seconds that shows an object for longest.

    Args:
        context: the video.
        query: the object.
        top_k: how many clips, best first.
    """
    check_object("query", query)
    times = rate_times(0.0, context.duration, RETRIEVAL_FPS)
    seen = sightings(context.look, context.video, times).get(query, [])
    clips = clip_windows(context.duration, CLIP_SECONDS)
    num_shown = {clip: sum(clip[0] <= second < clip[1] for second in seen) for clip in clips}
    best = sorted((clip for clip in clips if num_shown[clip]), key=lambda clip: -num_shown[clip])[:top_k]
    if not best:
        return ToolResult(text=NOTHING)
    return ToolResult(text=" ".join([query, *(f"clip {number(start)} {number(end)}" for start, end in best)]))


@tool
def image_retrieval(
    context: ToolContext,
    *,
    query: str,
    top_k: Annotated[int, Between(1, 8)] = 1,
    start: float | None = None,
    end: float | None = None,
) -> ToolResult:
    """Find a second at which the video shows an object, the middle one of them.

    Args:
        context: the video.
        query: the object.
        top_k: how many seconds, nearest to the middle first.
        start: first second of the window to search; the video's start if not given.
        end: second at which the window ends; the video's end if not given.
    """
    check_object("query", query)
    times = rate_times(*window(context.duration, start, end), RETRIEVAL_FPS)
    seen = sightings(context.look, context.video, times).get(query, [])
    if not seen:
        return ToolResult(text=NOTHING)
    middle = (len(seen) - 1) // 2
    nearest = sorted(range(len(seen)), key=lambda index: (abs(index - middle), index))[:top_k]
    return ToolResult(text=" ".join([query, *(f"t {number(seen[index])}" for index in nearest)]))
