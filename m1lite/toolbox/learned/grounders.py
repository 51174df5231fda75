"""What finds an event in a video: where the relevance of its seconds stands out, or a vision-language model's word.

A team that m1lite trained is one more: ``m1lite/run_grounder.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from m1lite.metrics.functional import parse_interval, parse_intervals
from m1lite.toolbox.arguments import shorten
from m1lite.toolbox.backends.loading import ModelError
from m1lite.toolbox.base import ToolContext
from m1lite.toolbox.learned.captions import Viewer, look_at
from m1lite.toolbox.learned.relevance import Relevance
from m1lite.toolbox.learned.viewing import NO_ORDERS
from m1lite.toolbox.proposals import relevant_windows
from m1lite.toolbox.wording import NOTHING, number
from m1lite.video.sampling import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A stretch of the video that may show an event."""

    start: float
    """Seconds."""
    end: float
    """Seconds, above ``start``."""
    score: float | None = None
    """Higher is surer; ``None`` where the grounder gives none."""


class Grounder(Protocol):
    """Finds an event in a window of a video."""

    def __call__(self, context: ToolContext, event: str, chosen: Window, count: int) -> Sequence[Proposal]:
        """Propose stretches inside of the window.

        Args:
            context: the video.
            event: what happens, in free words.
            chosen: the window, inside of the video.
            count: how many stretches at most, at least 1.

        Returns:
            Surest first; none where the event is not found.

        Raises:
            VideoError: if the video cannot be read.
            ModelError: if a model cannot be loaded or does not do what is asked of it.
        """


class RelevanceGrounder:
    """Proposes where the relevance of the seconds to the event's description stands out of the rest.

    Args:
        relevance: compares the video with a description.
    """

    def __init__(self, relevance: Relevance) -> None:
        self._relevance = relevance

    def __call__(self, context: ToolContext, event: str, chosen: Window, count: int) -> list[Proposal]:
        """Propose stretches, with how far their mean relevance is above the threshold; see ``Grounder``."""
        curve = self._relevance.curve(context, event).between(*chosen)
        found = relevant_windows(curve.seconds, curve.scores, count, end=chosen[1]) if curve.seconds else []
        return [Proposal(start=start, end=end, score=margin) for (start, end), margin in found]


class ViewerGrounder:
    """Asks a vision-language model that is shown frames of the window with their seconds.

    Args:
        viewer: looks and writes.
        num_frames: that it is shown, at least 2.
        side: pixels of the longer side of a frame, at least 28.
    """

    def __init__(self, viewer: Viewer, *, num_frames: int = 64, side: int = 224) -> None:
        if num_frames < 2 or side < 28:
            raise ValueError(f"`num_frames` must be at least 2 and `side` at least 28, got {num_frames} and {side}.")
        self._viewer = viewer
        self._num_frames = num_frames
        self._side = side

    def __call__(self, context: ToolContext, event: str, chosen: Window, count: int) -> list[Proposal]:
        """Propose what the model names, cut to the window; see ``Grounder``.

        Raises:
            ModelError: if the reply names no span of time, or only such outside of the window.
        """
        many = f"; name at most {count} such stretches, one per line, the surest first" if count > 1 else ""
        instruction = (
            f"These frames show a video from second {number(chosen[0])} to {number(chosen[1])}, each after its second. "
            f"From when to when does the following happen? Reply in seconds in the form `start to end`{many}. Reply "
            f"`{NOTHING}` if the frames do not show it. {NO_ORDERS}\n\nEvent: {event}"
        )
        reply = self._viewer(instruction, look_at(context, chosen, self._num_frames, self._side))
        return proposals_of(reply, chosen, count)


def proposals_of(reply: str, chosen: Window, count: int) -> list[Proposal]:
    """Read spans of time out of a model's reply.

    Args:
        reply: spans in the form ``start to end``, or ``none``.
        chosen: the window that was asked about; spans are cut to it.
        count: how many spans at most; of one, the last that is named.

    Raises:
        ModelError: if the reply names no span, or only such outside of the window.

    Example:
        >>> proposals_of("It happens from 2.5 to 30 s.", (0, 20), 1)
        [Proposal(start=2.5, end=20, score=None)]
    """
    if reply.strip(" .`'\"\n").lower() == NOTHING:
        return []
    spans = parse_interval(reply) if count == 1 else parse_intervals(reply)
    if spans is None:
        raise ModelError(f"The model named no span of time but {shorten(reply)}; say the event in other words.")
    return inside_window(spans.reshape(-1, 2).tolist()[:count], chosen)


def inside_window(spans: Sequence[Sequence[float]], chosen: Window) -> list[Proposal]:
    """Cut spans to a window.

    Args:
        spans: start and end in seconds.
        chosen: the window.

    Raises:
        ModelError: if there are spans but none reaches into the window.
    """
    low, high = chosen
    cut = [(max(start, low), min(end, high)) for start, end in spans]
    inside = [Proposal(start=start, end=end) for start, end in cut if start < end]
    if spans and not inside:
        named = ", ".join(f"{number(start)} to {number(end)}" for start, end in spans)
        raise ModelError(
            f"What was named, {named}, leaves nothing of the window from {number(low)} to {number(high)}; widen the "
            "window or say the event in other words."
        )
    return inside
