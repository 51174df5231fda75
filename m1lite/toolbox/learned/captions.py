"""Captions of a video, indexed once: clips by their frames, segments by their clips, the whole by its segments.

The tree serves planners that see texts only: they begin with the summary and go down where it matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

from m1lite.records import ToolResult
from m1lite.toolbox.arguments import Between, ToolArgumentError
from m1lite.toolbox.base import Tool, ToolContext, tool
from m1lite.toolbox.index import Entry, Recipe, VideoIndex
from m1lite.toolbox.learned.relevance import frames_of
from m1lite.toolbox.learned.search import shown_size
from m1lite.toolbox.wording import number
from m1lite.video.sampling import Window, clip_windows, uniform_times
from m1lite.video.subtitles import Subtitle

if TYPE_CHECKING:
    from m1lite.video.reader import Frames

CLIP_PROMPT = "Describe in two sentences what happens in these frames of a video: who or what, where, and every action."
JOIN_PROMPT = (
    "These notes describe consecutive parts of a video, each with its first and last second. Summarise in at most "
    "three sentences what happens, in order."
)


class Viewer(Protocol):
    """A model that looks at frames and writes."""

    @property
    def identity(self) -> str:
        """What replies depend on."""

    def __call__(self, instruction: str, frames: Frames | None = None) -> str:
        """Reply to an instruction about frames; raises ``ModelError``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionTree:
    """Captions of a video on three levels."""

    summary: str
    segments: tuple[Subtitle, ...]
    """Stretches of the video, in order, without gaps."""
    clips: tuple[tuple[Subtitle, ...], ...]
    """For each segment the clips that it consists of."""


class Captioner:
    """Makes the caption tree of a video once.

    Args:
        index: keeps the captions.
        viewer: looks at the clips, and joins their captions.
        clip_seconds: length of a clip, above 0.
        num_frames: frames of each clip that are shown, at least 1.
        side: pixels of the longer side of a shown frame, at least 28.

    References:
        LongVideo-R1 (arXiv:2602.20913) plans over such a tree; its leaves last about 16 seconds.
    """

    def __init__(
        self, index: VideoIndex, viewer: Viewer, *, clip_seconds: float = 16.0, num_frames: int = 8, side: int = 448
    ) -> None:
        if not clip_seconds > 0 or num_frames < 1 or side < 28:
            raise ValueError(
                f"`clip_seconds` must be above 0, `num_frames` at least 1 and `side` at least 28, got {clip_seconds}, "
                f"{num_frames} and {side}."
            )
        self._index = index
        self._viewer = viewer
        self._clip_seconds = clip_seconds
        self._num_frames = num_frames
        self._side = side

    def tree(self, context: ToolContext) -> CaptionTree:
        """Give the captions of a video.

        Raises:
            VideoError: if the video cannot be read.
            ModelError: if the viewer fails; the clips described before are made again then.
        """
        duration = frames_of(context).metadata(context.video).duration
        windows = clip_windows(duration, self._clip_seconds)
        groups = segment_groups(len(windows))
        texts = self._entry(context, "captions", lambda: tuple(self._describe(context, window) for window in windows))
        clips = _timed(windows, texts)
        parts = tuple(clips[first:beyond] for first, beyond in groups)
        joined = self._entry(context, "segments", lambda: tuple(self._join(part) for part in parts))
        segments = _timed([(part[0].start, part[-1].end) for part in parts], joined)
        (summary,) = self._entry(context, "summary", lambda: (self._join(segments),))
        return CaptionTree(summary=summary, segments=segments, clips=parts)

    def passages(self, context: ToolContext) -> Sequence[Subtitle]:
        """Give the captions of the clips, in order, for search by text."""
        return [clip for part in self.tree(context).clips for clip in part]

    def _entry(self, context: ToolContext, kind: str, make: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        sampling = {"clip_seconds": self._clip_seconds, "num_frames": self._num_frames, "side": self._side}
        maker = f"{self._viewer.identity} {CLIP_PROMPT} {JOIN_PROMPT}"
        recipe = Recipe(kind=kind, maker=maker, sampling=sampling)
        return self._index.entry(context.video, recipe, lambda: Entry(texts=make())).texts

    def _describe(self, context: ToolContext, window: Window) -> str:
        return self._viewer(CLIP_PROMPT, look_at(context, window, self._num_frames, self._side))

    def _join(self, parts: Sequence[Subtitle]) -> str:
        if len(parts) == 1:
            return parts[0].text
        notes = "\n".join(f"{number(part.start)} to {number(part.end)} s: {part.text}" for part in parts)
        return self._viewer(f"{JOIN_PROMPT}\n\n{notes}")


class CaptionReader:
    """``get_caption`` over a caption tree.

    Args:
        captioner: makes the tree.
    """

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The one tool."""
        return (tool(self.get_caption),)

    def get_caption(
        self,
        context: ToolContext,
        *,
        segment: Annotated[int, Between(1, 10_000)] | None = None,
        clip: Annotated[int, Between(1, 10_000)] | None = None,
    ) -> ToolResult:
        """Read a description of the video: of all of it and its segments, of a segment and its clips, or of one clip.

        Args:
            context: the video.
            segment: number of a segment, counted from 1; the whole video if not given.
            clip: number of a clip in the segment, counted from 1; all of them if not given.
        """
        if clip is not None and segment is None:
            raise ToolArgumentError(f"`clip` {clip} needs the `segment` that it is in.")
        tree = self._captioner.tree(context)
        if segment is None:
            return _listed("video", tree.summary, "segment", tree.segments)
        chosen = _choose("segment", segment, tree.segments)
        clips = tree.clips[segment - 1]
        if clip is None:
            return _listed(f"segment {segment}", chosen.text, "clip", clips)
        return ToolResult(text=_line(f"clip {clip}", _choose("clip", clip, clips)))


def look_at(context: ToolContext, window: Window, num_frames: int, side: int) -> Frames:
    """Decode frames spread over a window, fitted into a square of ``side`` pixels."""
    frames = frames_of(context)
    metadata = frames.metadata(context.video)
    size = shown_size(metadata.height, metadata.width, side, 28)
    return frames.frames_at(context.video, uniform_times(*window, num_frames), size=size)


def segment_groups(num_clips: int) -> list[tuple[int, int]]:
    """Join clips to segments, about as many as each holds clips.

    Example:
        >>> segment_groups(7)
        [(0, 3), (3, 5), (5, 7)]
    """
    count = max(1, round(math.sqrt(num_clips)))
    edges = [math.ceil(num_clips * place / count) for place in range(count + 1)]
    return [(edges[place], edges[place + 1]) for place in range(count)]


def _timed(windows: Sequence[Window], texts: Sequence[str]) -> tuple[Subtitle, ...]:
    return tuple(Subtitle(start=start, end=end, text=text) for (start, end), text in zip(windows, texts, strict=True))


def _choose(what: str, place: int, parts: Sequence[Subtitle]) -> Subtitle:
    if place > len(parts):
        raise ToolArgumentError(f"`{what}` {place} does not exist; there are {len(parts)}, counted from 1.")
    return parts[place - 1]


def _line(name: str, part: Subtitle) -> str:
    return f"{name} from {number(part.start)} to {number(part.end)}: {part.text}"


def _listed(whole: str, text: str, name: str, parts: Sequence[Subtitle]) -> ToolResult:
    lines = [f"{whole}: {text}", *(_line(f"{name} {place}", part) for place, part in enumerate(parts, 1))]
    return ToolResult(text="\n".join(lines))
