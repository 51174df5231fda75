"""The tool that says where in the picture things are, and which is nearer, by detection and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from m1lite.records import Box, ToolResult
from m1lite.toolbox.arguments import ToolArgumentError
from m1lite.toolbox.base import Tool, ToolContext, tool
from m1lite.toolbox.learned.relevance import frames_of
from m1lite.toolbox.learned.search import check_text
from m1lite.toolbox.perception import lane_of
from m1lite.toolbox.wording import NOTHING, number, window
from m1lite.video.sampling import uniform_times

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.toolbox.backends.detection import Found

_MAX_NAMES = 4

Detector = Callable[["Tensor", str], "list[list[Found]]"]
"""Finds a named object in uint8 ``(N, 3, H, W)``: one list per picture, surest first."""
Depth = Callable[["Tensor"], "Tensor"]
"""Tells how near every pixel is: ``(N, H, W)``, 1 is the nearest of a picture and 0 its farthest."""


class Places:
    """``spatial_tool`` of VideoChat-M1 (arXiv:2511.19524); arguments and texts are our reading.

    Args:
        detector: finds objects.
        depth: tells what is nearer; ``None`` leaves that out.
        num_frames: frames of the window that are looked at, at least 1.
        max_objects: of one name in one frame, at least 1.
    """

    def __init__(
        self, detector: Detector, *, depth: Depth | None = None, num_frames: int = 4, max_objects: int = 3
    ) -> None:
        if num_frames < 1 or max_objects < 1:
            raise ValueError(f"`num_frames` and `max_objects` must be at least 1, got {num_frames} and {max_objects}.")
        self._detector = detector
        self._depth = depth
        self._num_frames = num_frames
        self._max_objects = max_objects

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The one tool."""
        return (tool(self.spatial_tool),)

    def spatial_tool(
        self, context: ToolContext, *, question: str, start: float | None = None, end: float | None = None
    ) -> ToolResult:
        """Say where in the picture objects are in some frames of a window: lane, box in pixels, how near from 0 to 1.

        Args:
            context: the video.
            question: at most four objects in free words, separated by commas.
            start: first second of the window; the video's start if not given.
            end: second at which the window ends; the video's end if not given.
        """
        check_text("question", question)
        names = list(dict.fromkeys(name.strip() for name in question.split(",") if name.strip()))
        if not 1 <= len(names) <= _MAX_NAMES:
            raise ToolArgumentError(
                f"`question` names {len(names)} objects; name 1 to {_MAX_NAMES}, separated by commas."
            )
        times = uniform_times(*window(context.duration, start, end), self._num_frames)
        pixels = frames_of(context).frames_at(context.video, times).pixels
        found = {name: self._detector(pixels, name) for name in names}
        near = self._depth(pixels) if self._depth is not None and any(map(any, found.values())) else None
        lines = []
        for place, second in enumerate(times):
            seen = [(name, one) for name in names for one in found[name][place][: self._max_objects]]
            texts = [_write(name, one, pixels.shape[3], None if near is None else near[place]) for name, one in seen]
            lines.append(" ; ".join([f"t {number(second)}", *(texts or [NOTHING])]))
        return ToolResult(text="\n".join(lines))


def _write(name: str, found: Found, width: int, near: Tensor | None) -> str:
    box = found.box
    corners = " ".join(number(round(corner)) for corner in (box.left, box.top, box.right, box.bottom))
    nearness = "" if near is None else f" near {nearness_in(near, box):.2f}"
    return f"{name} {lane_of(box, width)} box {corners} score {found.score:.2f}{nearness}"


def nearness_in(near: Tensor, box: Box) -> float:
    """Give the median nearness of the middle of a box, half as high and wide, where little background is.

    Args:
        near: float ``(H, W)``.
        box: pixels, inside of the picture.
    """
    height, width = near.shape
    quarter, rise = (box.right - box.left) / 4, (box.bottom - box.top) / 4
    top, left = min(int(box.top + rise), height - 1), min(int(box.left + quarter), width - 1)
    bottom, right = max(round(box.bottom - rise), top + 1), max(round(box.right - quarter), left + 1)
    return float(near[top:bottom, left:right].median())
