"""Tools that say from when to when an event lasts, from the relevance of every second to its description."""

from __future__ import annotations

from typing import Annotated

from m1lite.records import ToolResult
from m1lite.toolbox.arguments import Between
from m1lite.toolbox.base import Tool, ToolContext, tool
from m1lite.toolbox.learned.relevance import Relevance
from m1lite.toolbox.learned.search import check_text
from m1lite.toolbox.proposals import relevant_windows
from m1lite.toolbox.wording import NOTHING, number, window


class EventGrounder:
    """``grounding_tool`` (VideoChat-M1) and ``ground_event`` (SAGE, arXiv:2512.13874), one over the other.

    Args:
        relevance: compares the video with a description.
    """

    def __init__(self, relevance: Relevance) -> None:
        self._relevance = relevance

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Both tools."""
        return tool(self.grounding_tool), tool(self.ground_event)

    def grounding_tool(
        self, context: ToolContext, *, event: str, start: float | None = None, end: float | None = None
    ) -> ToolResult:
        """Say from when to when the video shows an event.

        Args:
            context: the video.
            event: what happens, in free words.
            start: first second of the window to search; the video's start if not given.
            end: second at which the window ends; the video's end if not given.
        """
        return self._propose(context, event, start, end, 1)

    def ground_event(
        self,
        context: ToolContext,
        *,
        event: str,
        start: float | None = None,
        end: float | None = None,
        top_k: Annotated[int, Between(1, 5)] = 3,
    ) -> ToolResult:
        """Propose from when to when the video may show an event, with how far each stretch stands out of the rest.

        Args:
            context: the video.
            event: what happens, in free words.
            start: first second of the window to search; the video's start if not given.
            end: second at which the window ends; the video's end if not given.
            top_k: how many stretches, best first.
        """
        return self._propose(context, event, start, end, top_k)

    def _propose(
        self, context: ToolContext, event: str, start: float | None, end: float | None, count: int
    ) -> ToolResult:
        check_text("event", event)
        first, last = window(context.duration, start, end)
        curve = self._relevance.curve(context, event).between(first, last)
        found = relevant_windows(curve.seconds, curve.scores, count, end=last) if curve.seconds else []
        texts = [f"span {number(one)} {number(other)} score {margin:.3f}" for (one, other), margin in found]
        return ToolResult(text=" ".join(texts) or NOTHING)
