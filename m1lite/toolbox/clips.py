"""Tools that show frames: a clip, a crop of the video, a closer look at a part of the picture, single frames.

They return references, at the size of the file; how large a policy sees them is its agent's matter. Refusals are
``ToolArgumentError``: the agent reads them as the result of its call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from m1lite.records import MediaRef, ToolResult
from m1lite.toolbox.arguments import Between, ToolArgumentError
from m1lite.toolbox.base import FunctionTool, ToolContext, tool
from m1lite.toolbox.wording import number, window
from m1lite.video.media import pixel_box
from m1lite.video.sampling import rate_times, uniform_times

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_FPS = 60.0
_CROP_FPS = 1.0


@dataclass(frozen=True, kw_only=True)
class ClipTools:
    """The tools, with one bound on the frames of a call.

    Raises:
        ValueError: if the bound is below 1.
    """

    max_frames: int = 32

    def __post_init__(self) -> None:
        if self.max_frames < 1:
            raise ValueError(f"`max_frames` is {self.max_frames}; a call must be allowed to show at least 1 frame.")

    def __call__(self, names: Sequence[str]) -> list[FunctionTool]:
        """Return some of the tools by name.

        Raises:
            ValueError: if there is no such tool; lists those that there are.
        """
        made = {one.__name__: tool(one) for one in (self.video_clip, self.crop_video, self.zoom, self.get_frames)}
        unknown = sorted(set(names) - made.keys())
        if unknown:
            raise ValueError(f"There are no clip tools {unknown}; there are {sorted(made)}.")
        return [made[name] for name in names]

    def video_clip(
        self, context: ToolContext, *, start: float, end: float, fps: Annotated[float, Between(0.01, _MOST_FPS)] = 2.0
    ) -> ToolResult:
        """Show the frames of a window of the video.

        Args:
            context: the video.
            start: second at which the window begins.
            end: second at which the window ends.
            fps: frames per second.
        """
        first, last = window(context.duration, start, end)
        times = rate_times(first, last, fps)
        self._check_count(len(times), "lower `fps` or take a shorter window")
        return _shown(context, times)

    def crop_video(self, context: ToolContext, *, start_time: float, end_time: float) -> ToolResult:
        """Show a part of the video, one frame a second; of a long part fewer, spread evenly.

        Args:
            context: the video.
            start_time: second at which the part begins.
            end_time: second at which the part ends.
        """
        first, last = window(context.duration, start_time, end_time)
        times = rate_times(first, last, _CROP_FPS)
        if len(times) > self.max_frames:
            times = uniform_times(first, last, self.max_frames)
        return _shown(context, times)

    def zoom(
        self, context: ToolContext, *, start: float, end: float, box: tuple[float, float, float, float]
    ) -> ToolResult:
        """Show a part of the picture in a window of the video, two frames a second.

        Args:
            context: the video.
            start: second at which the window begins.
            end: second at which the window ends.
            box: left, top, right and bottom of the part, as shares of the picture from 0 to 1.
        """
        first, last = window(context.duration, start, end)
        times = rate_times(first, last, 2.0)
        self._check_count(len(times), "take a shorter window")
        left, top, right, bottom = box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            edges = ", ".join(number(edge) for edge in box)
            raise ToolArgumentError(
                f"`box` {edges} must be left, top, right and bottom from 0 to 1, left below right and top below bottom."
            )
        return _shown(context, times, (float(left), float(top), float(right), float(bottom)))

    def get_frames(self, context: ToolContext, *, times: tuple[float, ...]) -> ToolResult:
        """Show single frames.

        Args:
            context: the video.
            times: seconds of the frames.
        """
        self._check_count(len(times), "ask for fewer")
        for second in times:
            if not 0 <= second < context.duration:
                raise ToolArgumentError(
                    f"`times` holds {number(second)}, outside of the video, which lasts from 0 to "
                    f"{number(context.duration)} seconds."
                )
        return _shown(context, sorted({float(second) for second in times}))

    def _check_count(self, count: int, remedy: str) -> None:
        if count > self.max_frames:
            raise ToolArgumentError(f"That would be {count} frames, above the limit of {self.max_frames}; {remedy}.")


def clip_tool(name: str, *, max_frames: int = 32) -> FunctionTool:
    """Return one of the tools.

    Args:
        name: ``"video_clip"``, ``"crop_video"``, ``"zoom"`` or ``"get_frames"``.
        max_frames: that a call may show.

    Raises:
        ValueError: if there is no such tool, or the bound is below 1.
    """
    (made,) = ClipTools(max_frames=max_frames)([name])
    return made


def _shown(
    context: ToolContext, times: Sequence[float], box: tuple[float, float, float, float] | None = None
) -> ToolResult:
    """Refer to frames at the size that they have in the file."""
    if context.frames is None:
        raise ToolArgumentError("The video's pixels cannot be read here, so no frames can be shown.")
    held = context.frames.metadata(context.video)
    # A file may be a little shorter than the sample says it is.
    kept = [second for second in times if second < held.duration]
    if not kept:
        raise ToolArgumentError(f"The video ends at {number(held.duration)} seconds, before the first frame asked for.")
    left, top, right, bottom = pixel_box(box or (0.0, 0.0, 1.0, 1.0), held.height, held.width)
    media = MediaRef(uri=context.video, timestamps=tuple(kept), size=(bottom - top, right - left), box=box)
    seconds = ", ".join(number(second) for second in kept)
    return ToolResult(text=f"{len(kept)} frame{'s' if len(kept) > 1 else ''} at {seconds} seconds", media=(media,))
