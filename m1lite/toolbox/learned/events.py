"""Tools that say from when to when an event lasts. What finds it is a grounder, see grounders.py."""

from __future__ import annotations

from typing import Annotated

from m1lite.records import ToolResult
from m1lite.toolbox.arguments import Between
from m1lite.toolbox.base import Tool, ToolContext, tool
from m1lite.toolbox.learned.grounders import Grounder, Proposal
from m1lite.toolbox.learned.search import check_text
from m1lite.toolbox.wording import NOTHING, number, window


class EventGrounder:
    """``grounding_tool`` (VideoChat-M1) and ``ground_event`` (SAGE, arXiv:2512.13874), one over the other.

    Args:
        grounder: finds events.
    """

    def __init__(self, grounder: Grounder) -> None:
        self._grounder = grounder

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
        """Propose from when to when the video may show an event, surest first, with a score where there is one.

        Args:
            context: the video.
            event: what happens, in free words.
            start: first second of the window to search; the video's start if not given.
            end: second at which the window ends; the video's end if not given.
            top_k: how many stretches.
        """
        return self._propose(context, event, start, end, top_k)

    def _propose(
        self, context: ToolContext, event: str, start: float | None, end: float | None, count: int
    ) -> ToolResult:
        check_text("event", event)
        proposals = self._grounder(context, event, window(context.duration, start, end), count)
        return ToolResult(text=" ".join(map(_write, proposals)) or NOTHING)


def _write(found: Proposal) -> str:
    score = "" if found.score is None else f" score {found.score:.3f}"
    return f"span {number(found.start)} {number(found.end)}{score}"
