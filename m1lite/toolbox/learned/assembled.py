"""Tools by name, and all tools that given models allow."""

from __future__ import annotations

from typing import Protocol

from m1lite.toolbox.arguments import shorten
from m1lite.toolbox.base import Tool
from m1lite.toolbox.index import VideoIndex
from m1lite.toolbox.learned.captions import Captioner, CaptionReader, Viewer
from m1lite.toolbox.learned.events import EventGrounder
from m1lite.toolbox.learned.grounders import RelevanceGrounder
from m1lite.toolbox.learned.places import Depth, Detector, Places
from m1lite.toolbox.learned.relevance import FrameRelevance, ImageTextModel, Relevance, TextRelevance, TextScorer
from m1lite.toolbox.learned.search import FrameSeeker, Search
from m1lite.toolbox.learned.speech import Speech, SpeechReader, SubtitlesBeside, Transcriber
from m1lite.toolbox.learned.tracking import Tracker, Tracking
from m1lite.toolbox.learned.viewing import Viewing


class Family(Protocol):
    """Tools that share a model."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All of them."""


def tool_of(family: Family, name: str) -> Tool:
    """Take one tool out of a family, so that a configuration names every tool with its own backend.

    Raises:
        ValueError: if the family has no such tool; lists those that it has.
    """
    found = {tool.name: tool for tool in family.tools}
    if name not in found:
        raise ValueError(f"`{type(family).__name__}` has no tool {shorten(name)}; it has {', '.join(found)}.")
    return found[name]


def caption_relevance(captioner: Captioner, scorer: TextScorer) -> TextRelevance:
    """Compare a video with queries by the captions of its clips."""
    return TextRelevance(captioner.passages, scorer)


def speech_relevance(speech: Speech, scorer: TextScorer) -> TextRelevance:
    """Compare a video with queries by what is said in it."""
    return TextRelevance(speech.passages, scorer)


def model_tools(
    index: VideoIndex,
    *,
    encoder: ImageTextModel | None = None,
    scorer: TextScorer | None = None,
    viewer: Viewer | None = None,
    detector: Detector | None = None,
    depth: Depth | None = None,
    tracker: Tracker | None = None,
    transcriber: Transcriber | None = None,
) -> list[Tool]:
    """Make the tools of these models.

    Args:
        index: keeps what was computed from videos.
        encoder: of frames and texts: retrieval, seeking and grounding by frames.
        scorer: of texts: retrieval and grounding by the viewer's captions, where there is no encoder.
        viewer: looks and writes: sampling, browsers, questions and captions.
        detector: of named objects: the spatial tool.
        depth: adds to the spatial tool what is nearer.
        tracker: of an object from its first box.
        transcriber: hears what is said in videos that have no subtitles beside them.

    Raises:
        ValueError: if there is no model, a scorer without a viewer or beside an encoder, or depth without a detector.
    """
    _check_company(scorer, viewer, encoder, depth, detector)
    tools: list[Tool] = []
    relevance: Relevance | None = None
    if viewer is not None:
        captioner = Captioner(index, viewer)
        tools += [*Viewing(viewer).tools, *CaptionReader(captioner).tools]
        if scorer is not None:
            relevance = caption_relevance(captioner, scorer)
    if encoder is not None:
        frames = relevance = FrameRelevance(index, encoder)
        tools += FrameSeeker(frames).tools
    if relevance is not None:
        tools += [*Search(relevance).tools, *EventGrounder(RelevanceGrounder(relevance)).tools]
    if detector is not None:
        tools += Places(detector, depth=depth).tools
    if tracker is not None:
        tools += Tracking(tracker).tools
    if transcriber is not None:
        tools += SpeechReader(Speech(index, transcriber, subtitles=SubtitlesBeside())).tools
    if not tools:
        raise ValueError("There is no model: give an `encoder`, `viewer`, `detector`, `tracker` or `transcriber`.")
    return tools


def _check_company(
    scorer: TextScorer | None,
    viewer: Viewer | None,
    encoder: ImageTextModel | None,
    depth: Depth | None,
    detector: Detector | None,
) -> None:
    if scorer is not None and (viewer is None or encoder is not None):
        raise ValueError("`scorer` searches the captions of a `viewer` in place of an `encoder`; give it without one.")
    if depth is not None and detector is None:
        raise ValueError("`depth` is told of detected objects; give a `detector` too.")
