"""Tools that search a video for what a query describes in free words: clips, seconds, and frames to look at."""

from __future__ import annotations

from typing import Annotated

from m1lite.records import MediaRef, ToolResult
from m1lite.toolbox.arguments import Between, ToolArgumentError
from m1lite.toolbox.base import Tool, ToolContext, tool
from m1lite.toolbox.diversity import diverse_choice
from m1lite.toolbox.learned.relevance import FrameRelevance, Relevance, frames_of
from m1lite.toolbox.wording import NOTHING, number, window
from m1lite.video.sampling import clip_windows, relevant_times


class Search:
    """``video_retrieval`` and ``image_retrieval`` over any relevance.

    The names are those of VideoChat-M1's tools (arXiv:2511.19524); arguments and texts are our reading.

    Args:
        relevance: compares the video with a query.
        clip_seconds: length of a clip, above 0.
        min_gap_seconds: how far apart found seconds are, where there are enough.
    """

    def __init__(self, relevance: Relevance, *, clip_seconds: float = 8.0, min_gap_seconds: float = 2.0) -> None:
        if not clip_seconds > 0 or not min_gap_seconds >= 0:
            raise ValueError(
                f"`clip_seconds` must be above 0 and `min_gap_seconds` at least 0, got {clip_seconds} and "
                f"{min_gap_seconds}."
            )
        self._relevance = relevance
        self._clip_seconds = clip_seconds
        self._min_gap = min_gap_seconds

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Both tools."""
        return tool(self.video_retrieval), tool(self.image_retrieval)

    def video_retrieval(
        self, context: ToolContext, *, query: str, top_k: Annotated[int, Between(1, 8)] = 1
    ) -> ToolResult:
        """Find the clips of a few seconds that fit a description best: from when to when, with a score.

        Args:
            context: the video.
            query: what to look for, in free words.
            top_k: how many clips, best first.
        """
        check_text("query", query)
        clips = clip_windows(context.duration, self._clip_seconds)
        scored = zip(self._relevance.clips(context, query, clips), clips, strict=True)
        found = sorted(((score, clip) for score, clip in scored if score is not None), key=lambda pair: -pair[0])
        texts = [f"clip {number(start)} {number(end)} score {score:.3f}" for score, (start, end) in found[:top_k]]
        return ToolResult(text=" ".join(texts) or NOTHING)

    def image_retrieval(
        self,
        context: ToolContext,
        *,
        query: str,
        top_k: Annotated[int, Between(1, 8)] = 1,
        start: float | None = None,
        end: float | None = None,
    ) -> ToolResult:
        """Find the seconds at which the picture fits a description best, with a score.

        Args:
            context: the video.
            query: what to look for, in free words.
            top_k: how many seconds, best first.
            start: first second of the window to search; the video's start if not given.
            end: second at which the window ends; the video's end if not given.
        """
        check_text("query", query)
        first, last = window(context.duration, start, end)
        curve = self._relevance.curve(context, query).between(first, last)
        if not curve.seconds:
            return ToolResult(text=NOTHING)
        chosen = relevant_times(curve.seconds, curve.scores, top_k, min_gap=self._min_gap)
        score = dict(zip(curve.seconds, curve.scores, strict=True))
        best = sorted(chosen, key=lambda second: -score[second])
        return ToolResult(text=" ".join(f"t {number(second)} score {score[second]:.3f}" for second in best))


class FrameSeeker:
    """``seek_video_frames``: shows frames that fit a query and are unlike each other.

    After TimeSearch-R (arXiv:2511.05489), which describes relevance by SigLIP and a determinantal point process.

    Args:
        relevance: holds the frames' vectors.
        side: pixels of the longer side of a shown frame; both sides become multiples of ``multiple``.
        multiple: pixels; what the policies that look at the frames ask for.
        relevance_weight: how much relevance counts against diversity, at least 0.
    """

    def __init__(
        self, relevance: FrameRelevance, *, side: int = 448, multiple: int = 28, relevance_weight: float = 10.0
    ) -> None:
        if not side >= multiple >= 1 or relevance_weight < 0:
            raise ValueError(
                f"`side` must be at least `multiple`, this at least 1, and `relevance_weight` at least 0, got {side}, "
                f"{multiple} and {relevance_weight}."
            )
        self._relevance = relevance
        self._side = side
        self._multiple = multiple
        self._weight = relevance_weight

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The one tool."""
        return (tool(self.seek_video_frames),)

    def seek_video_frames(
        self,
        context: ToolContext,
        *,
        query: str,
        start_time: float | None = None,
        end_time: float | None = None,
        num_frames: Annotated[int, Between(1, 8)] = 8,
    ) -> ToolResult:
        """Show frames that fit a description and differ from each other, in the order of the video.

        Args:
            context: the video.
            query: what to look for, in free words.
            start_time: first second of the window to search; the video's start if not given.
            end_time: second at which the window ends; the video's end if not given.
            num_frames: how many frames.
        """
        import torch

        check_text("query", query)
        first, last = window(context.duration, start_time, end_time)
        seconds, vectors = self._relevance.vectors(context)
        inside = [place for place, second in enumerate(seconds) if first <= second < last]
        if not inside:
            return ToolResult(text=NOTHING)
        scores = torch.tensor(self._relevance.curve(context, query).scores)[inside]
        chosen = diverse_choice(scores, vectors[inside], num_frames, weight=self._weight)
        shown = tuple(sorted(seconds[inside[row]] for row in chosen))
        metadata = frames_of(context).metadata(context.video)
        size = shown_size(metadata.height, metadata.width, self._side, self._multiple)
        media = MediaRef(uri=context.video, timestamps=shown, size=size)
        return ToolResult(text=" ".join(f"t {number(second)}" for second in shown), media=(media,))


def shown_size(height: int, width: int, side: int, multiple: int) -> tuple[int, int]:
    """Fit a frame into a square, both sides rounded to multiples, and never enlarged by more than the rounding.

    Example:
        >>> shown_size(720, 1280, 448, 28)
        (252, 448)
    """
    scale = min(1.0, side / max(height, width))
    most = side // multiple
    rows, columns = (min(most, max(1, round(edge * scale / multiple))) for edge in (height, width))
    return rows * multiple, columns * multiple


def check_text(argument: str, text: str) -> None:
    """Refuse a text without a word, and one that nobody would write.

    Raises:
        ToolArgumentError: names the argument and what is allowed.
    """
    if not text.strip():
        raise ToolArgumentError(f"`{argument}` is empty; say in words what to look for.")
    if len(text) > 2000:
        raise ToolArgumentError(f"`{argument}` has {len(text)} characters; at most 2000 are read.")
