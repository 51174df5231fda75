"""Tools that answer a question about a window: coarsely about all of the video, or finely about a few seconds."""

from __future__ import annotations

from m1lite.records import ToolResult
from m1lite.toolbox.arguments import ToolArgumentError
from m1lite.toolbox.base import ToolContext, tool
from m1lite.toolbox.grounding import seen_span
from m1lite.toolbox.look import sightings
from m1lite.toolbox.wording import ANYTHING, NOTHING, check_object, number, window
from m1lite.video.sampling import rate_times

ROUGH_FPS = 0.5
FINE_FPS = 4.0
MAX_FINE_SECONDS = 12.0


@tool
def rough_browser(
    context: ToolContext, *, question: str, start: float | None = None, end: float | None = None
) -> ToolResult:
    """Count and name the objects of a window, in the order of first sight, from one frame every two seconds.

    Args:
        context: the video.
        question: an object, or the word objects for all of them.
        start: first second of the window; the video's start if not given.
        end: second at which the window ends; the video's end if not given.
    """
    check_object("question", question, or_anything=True)
    times = rate_times(*window(context.duration, start, end), ROUGH_FPS)
    seen = [name for name in sightings(context.look, context.video, times) if question in (ANYTHING, name)]
    return ToolResult(text=" ".join(["seen", number(len(seen)), *seen]))


@tool
def fine_browser(context: ToolContext, *, question: str, start: float, end: float) -> ToolResult:
    """Say from when to when a window of at most twelve seconds shows its objects, from four frames per second.

    Args:
        context: the video.
        question: an object, or the word objects for all of them.
        start: first second of the window.
        end: second at which the window ends.
    """
    check_object("question", question, or_anything=True)
    first, last = window(context.duration, start, end)
    if last - first > MAX_FINE_SECONDS:
        raise ToolArgumentError(
            f"The window from {number(first)} to {number(last)} is {number(last - first)} seconds long; "
            f"`fine_browser` looks at {number(MAX_FINE_SECONDS)} at most."
        )
    times = rate_times(first, last, FINE_FPS)
    spans = [
        f"{name} {seen_span(seen, FINE_FPS)}"
        for name, seen in sightings(context.look, context.video, times).items()
        if question in (ANYTHING, name)
    ]
    return ToolResult(text=" ".join(spans) or NOTHING)
