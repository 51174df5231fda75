"""Tools that speak of frames by their number: frames from one number to another, and the number at a time.

They return references, as ``clips.py``'s do. Refusals are ``ToolArgumentError``: the agent reads them as a result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m1lite.records import MediaRef, ToolResult
from m1lite.toolbox.arguments import ToolArgumentError, shorten
from m1lite.toolbox.base import FunctionTool, ToolContext, tool
from m1lite.toolbox.wording import number

if TYPE_CHECKING:
    from m1lite.video.base import VideoMetadata

_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):(\d{2})")


@dataclass(frozen=True, kw_only=True)
class FrameNumbers:
    """``choose_frames`` and ``get_frame_number``.

    Args:
        num_frames: shown of a video of up to ``long_seconds``.
        num_frames_long: shown of a longer one.
        long_seconds: from there on a video is long.

    References:
        FrameThinker: 8 frames, or 12 of a video of more than 300 s; there the actions are sentences, here calls.
    """

    num_frames: int = 8
    num_frames_long: int = 12
    long_seconds: float = 300.0

    def __call__(self, name: str) -> FunctionTool:
        """Return one of the tools.

        Raises:
            ValueError: if there is no such tool.
        """
        made = {one.__name__: tool(one) for one in (self.choose_frames, self.get_frame_number)}
        if name not in made:
            raise ValueError(f"There is no frame tool {name!r}; there are {sorted(made)}.")
        return made[name]

    def choose_frames(self, context: ToolContext, *, start_frame: int, end_frame: int) -> ToolResult:
        """Show frames from one number to another, spread evenly, each with its number.

        Args:
            context: the video.
            start_frame: number of the first frame; the video begins with 0.
            end_frame: number of the last frame.
        """
        held = _held(context)
        if not 0 <= start_frame <= end_frame < held.num_frames:
            raise ToolArgumentError(
                f"`start_frame` {start_frame} and `end_frame` {end_frame} must be 0 <= start <= end <= "
                f"{held.num_frames - 1}, the last frame."
            )
        most = self.num_frames_long if context.duration > self.long_seconds else self.num_frames
        count = min(most, end_frame - start_frame + 1)
        step = (end_frame - start_frame) / max(1, count - 1)
        numbers = [round(start_frame + step * place) for place in range(count)]
        seconds = tuple((frame + 0.5) * held.duration / held.num_frames for frame in numbers)
        media = MediaRef(uri=context.video, timestamps=seconds, size=(held.height, held.width))
        return ToolResult(text=f"Frames {', '.join(map(str, numbers))}", media=(media,))

    def get_frame_number(self, context: ToolContext, *, time: str) -> ToolResult:
        """Tell the number of the frame that is shown at a time.

        Args:
            context: the video.
            time: minutes and seconds, such as 02:35, or hours too, such as 1:02:35.
        """
        held = _held(context)
        found = _CLOCK.fullmatch(time.strip())
        if found is None:
            raise ToolArgumentError(f"`time` {shorten(time)} must be minutes and seconds, such as 02:35.")
        second = int(found[1] or 0) * 3600 + int(found[2]) * 60 + int(found[3])
        if second >= held.duration:
            raise ToolArgumentError(
                f"`time` {time.strip()} is past the video, which lasts {number(held.duration)} seconds."
            )
        frame = min(held.num_frames - 1, int(second * held.num_frames / held.duration))
        return ToolResult(text=f"At {time.strip()} the frame number is {frame}")


def frame_tool(
    name: str, *, num_frames: int = 8, num_frames_long: int = 12, long_seconds: float = 300.0
) -> FunctionTool:
    """Return one of the tools.

    Args:
        name: ``"choose_frames"`` or ``"get_frame_number"``.
        num_frames: as in :class:`FrameNumbers`.
        num_frames_long: as in :class:`FrameNumbers`.
        long_seconds: as in :class:`FrameNumbers`.

    Raises:
        ValueError: if there is no such tool.
    """
    return FrameNumbers(num_frames=num_frames, num_frames_long=num_frames_long, long_seconds=long_seconds)(name)


def _held(context: ToolContext) -> VideoMetadata:
    if context.frames is None:
        raise ToolArgumentError("The video's pixels cannot be read here, so that no frames can be counted.")
    return context.frames.metadata(context.video)
