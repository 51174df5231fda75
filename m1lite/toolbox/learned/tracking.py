"""The tool that follows an object from a box at one second to its boxes at others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from m1lite.records import Box, ToolResult
from m1lite.toolbox.arguments import ToolArgumentError
from m1lite.toolbox.base import Tool, ToolContext, tool
from m1lite.toolbox.learned.relevance import frames_of
from m1lite.toolbox.wording import NOTHING, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Tracker = Callable[["Tensor", Box], "list[Box | None]"]
"""Follows the object of a box in the first of uint8 ``(N, 3, H, W)``: a box per frame, ``None`` where it is hidden."""


class Tracking:
    """``track_object``, over any tracker.

    Args:
        tracker: follows an object from frame to frame.
        fps: frames per second that it is shown, above 0.
        max_frames: that it is shown in one call, at least 2; over a longer time they are further apart.
    """

    def __init__(self, tracker: Tracker, *, fps: float = 4.0, max_frames: int = 64) -> None:
        if not fps > 0 or max_frames < 2:
            raise ValueError(f"`fps` must be above 0 and `max_frames` at least 2, got {fps} and {max_frames}.")
        self._tracker = tracker
        self._fps = fps
        self._max_frames = max_frames

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The one tool."""
        return (tool(self.track_object),)

    def track_object(
        self,
        context: ToolContext,
        *,
        start: float,
        box: tuple[float, float, float, float],
        times: tuple[float, ...],
    ) -> ToolResult:
        """Follow an object from its box at one second: say its box at later seconds.

        Args:
            context: the video.
            start: second at which the box is known.
            box: left, top, right and bottom of the object then, in pixels.
            times: later seconds at which to say its box.
        """
        frames = frames_of(context)
        held = frames.metadata(context.video)
        self._check_times(start, times, min(context.duration, held.duration))
        left, top, right, bottom = box
        if not (0 <= left < right <= held.width and 0 <= top < bottom <= held.height):
            raise ToolArgumentError(
                f"`box` {' '.join(map(number, box))} must be left, top, right and bottom in pixels of a picture of "
                f"{held.width} x {held.height}, left below right and top below bottom."
            )
        asked = sorted({float(second) for second in times})
        shown = _shown_times(start, asked, self._fps, self._max_frames)
        pixels = frames.frames_at(context.video, shown).pixels
        found = self._tracker(pixels, Box(left=left, top=top, right=right, bottom=bottom))
        boxes = dict(zip(shown, found, strict=True))
        return ToolResult(text="\n".join(f"t {number(second)} {_write(boxes[second])}" for second in asked))

    def _check_times(self, start: float, times: Sequence[float], duration: float) -> None:
        if not 0 <= start < duration:
            raise ToolArgumentError(f"`start` {number(start)} must lie from 0 to below {number(duration)}.")
        wrong = [second for second in times if not start <= second < duration]
        if wrong:
            raise ToolArgumentError(
                f"`times` holds {number(wrong[0])}; it must lie from `start` {number(start)} to below "
                f"{number(duration)}."
            )
        if len(set(times)) >= self._max_frames:
            raise ToolArgumentError(f"`times` holds {len(set(times))} seconds; give fewer than {self._max_frames}.")


def _shown_times(start: float, asked: Sequence[float], fps: float, most: int) -> list[float]:
    """Choose frames from ``start`` to the last second asked: those asked, and between them about ``fps`` a second.

    Example:
        >>> _shown_times(1.0, [2.0, 2.5], 2.0, 8), _shown_times(0.0, [10.0], 2.0, 3)
        ([1.0, 1.5, 2.0, 2.5], [0.0, 5.0, 10.0])
    """
    last, room = asked[-1], most - 1 - len(asked)
    count = math.ceil((last - start) * fps - 1e-9) - 1
    if count > room:
        between = [start + (last - start) * place / (room + 1) for place in range(1, room + 1)]
    else:
        between = [start + place / fps for place in range(1, count + 1)]
    return sorted({start, *asked, *between})


def _write(box: Box | None) -> str:
    if box is None:
        return NOTHING
    return " ".join(["box", *(number(round(corner)) for corner in (box.left, box.top, box.right, box.bottom))])
