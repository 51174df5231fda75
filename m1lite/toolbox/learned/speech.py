"""The tool that tells what is said in a video: its subtitles where it has some, else what a model hears."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from m1lite.records import ToolResult
from m1lite.toolbox.base import Tool, ToolContext, tool
from m1lite.toolbox.index import Entry, Recipe, VideoIndex
from m1lite.toolbox.learned.relevance import frames_of
from m1lite.toolbox.wording import NOTHING, number, window
from m1lite.video.audio import NoSoundError, read_audio
from m1lite.video.policy import VideoPolicy
from m1lite.video.sampling import Window, clip_windows
from m1lite.video.subtitles import Subtitle, read_subtitles, subtitles_between

if TYPE_CHECKING:
    from torch import Tensor

NO_SOUND = "The video has no sound."

FindSubtitles = Callable[[ToolContext], "Sequence[Subtitle] | None"]
"""Finds the subtitles of a video; ``None`` where it has none."""


class Transcriber(Protocol):
    """A model that writes down what is said."""

    @property
    def identity(self) -> str:
        """What the words depend on."""

    def __call__(self, sound: Tensor) -> list[Subtitle]:
        """Write down float32 ``(N,)``, 16,000 samples per second; raises ``ModelError``."""


class SubtitlesBeside:
    """Finds text tracks that lie beside local videos and are named like them.

    Args:
        endings: what follows the video's name without its own ending; the first one that exists counts. LongVideoBench
            has ``_en.json``.
        folder: where the text tracks lie; ``None`` is the video's own folder.
        policy: where they may lie; ``None`` is ``VideoPolicy()``.
    """

    def __init__(
        self,
        endings: Sequence[str] = (".srt", ".vtt"),
        *,
        folder: str | Path | None = None,
        policy: VideoPolicy | None = None,
    ) -> None:
        self._endings = tuple(endings)
        self._folder = None if folder is None else Path(folder)
        self._policy = policy or VideoPolicy()

    def __call__(self, context: ToolContext) -> list[Subtitle] | None:
        """Read the video's text track, if there is one.

        Raises:
            VideoError: if it cannot be read.
        """
        video = self._policy.local_path(context.video)
        if video is None:
            return None
        folder = self._folder or video.parent
        files = (folder / f"{video.stem}{ending}" for ending in self._endings)
        found = next((file for file in files if file.is_file()), None)
        return None if found is None else read_subtitles(found, policy=self._policy)


class Speech:
    """What is said in a video, as texts with times; the sound is written down piece by piece, each piece once.

    Args:
        index: keeps what the model heard.
        transcriber: hears.
        subtitles: are taken where a video has them; ``None`` always listens.
        piece_seconds: length of a piece, above 0. A word that is said over the end of one may be lost.
    """

    def __init__(
        self,
        index: VideoIndex,
        transcriber: Transcriber,
        *,
        subtitles: FindSubtitles | None = None,
        piece_seconds: float = 300.0,
    ) -> None:
        if not piece_seconds > 0:
            raise ValueError(f"`piece_seconds` must be above 0, got {piece_seconds}.")
        self._index = index
        self._transcriber = transcriber
        self._subtitles = subtitles
        self._piece_seconds = piece_seconds

    def between(self, context: ToolContext, chosen: Window) -> list[Subtitle]:
        """Give what is said at some time in a window.

        Raises:
            VideoError: if the video cannot be read; ``NoSoundError`` if it has neither subtitles nor sound.
            ModelError: if the model fails.
        """
        duration = frames_of(context).metadata(context.video).duration  # opens the video under the toolbox's policy
        said = None if self._subtitles is None else self._subtitles(context)
        if said is None:
            said = [
                one
                for piece in clip_windows(duration, self._piece_seconds)
                if piece[0] < chosen[1] and piece[1] > chosen[0]
                for one in self._heard(context, piece)
            ]
        return subtitles_between(said, *chosen)

    def passages(self, context: ToolContext) -> list[Subtitle]:
        """Give all that is said, for search by text; nothing where there is no sound."""
        try:
            return self.between(context, (0.0, context.duration))
        except NoSoundError:
            return []

    def _heard(self, context: ToolContext, piece: Window) -> list[Subtitle]:
        import torch

        def listen() -> Entry:
            said = self._transcriber(read_audio(context.video, *piece))
            spans = torch.tensor([(one.start, one.end) for one in said], dtype=torch.float64).reshape(-1, 2)
            return Entry(tensors={"spans": spans + piece[0]}, texts=tuple(one.text for one in said))

        sampling = {"start": piece[0], "end": piece[1]}
        entry = self._index.entry(
            context.video, Recipe(kind="speech", maker=self._transcriber.identity, sampling=sampling), listen
        )
        spans = entry.tensors["spans"].tolist()
        return [
            Subtitle(start=start, end=end, text=text) for (start, end), text in zip(spans, entry.texts, strict=True)
        ]


class SpeechReader:
    """``transcribe_speech`` of SAGE (arXiv:2512.13874).

    Args:
        speech: what is said.
        max_characters: of one result, at least 1; what is said later is left out, and that is said.
    """

    def __init__(self, speech: Speech, *, max_characters: int = 4000) -> None:
        if max_characters < 1:
            raise ValueError(f"`max_characters` must be at least 1, got {max_characters}.")
        self._speech = speech
        self._max_characters = max_characters

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The one tool."""
        return (tool(self.transcribe_speech),)

    def transcribe_speech(
        self, context: ToolContext, *, start: float | None = None, end: float | None = None
    ) -> ToolResult:
        """Read what is said in the video or a window of it, each text with its seconds.

        Args:
            context: the video.
            start: first second of the window; the video's start if not given.
            end: second at which the window ends; the video's end if not given.
        """
        first, last = window(context.duration, start, end)
        try:
            said = self._speech.between(context, (first, last))
        except NoSoundError:
            return ToolResult(text=NO_SOUND)
        lines = [
            f"{number(one.start)} to {number(min(one.end, context.duration))}: {one.text}"
            for one in said
            if one.start < context.duration
        ]
        return ToolResult(text=_fitted(lines, self._max_characters) or NOTHING)


def _fitted(lines: Sequence[str], most: int) -> str:
    r"""Join lines as long as they fit, and count those that do not; of a long first one, the beginning is told.

    Example:
        >>> _fitted(["0 to 2: a dog", "2 to 3: barks"], 20)
        '0 to 2: a dog\n(1 more; ask for a shorter or later window)'
    """
    told: list[str] = []
    for line in lines:
        if len("\n".join([*told, line])) > most:
            break
        told.append(line)
    left = len(lines) - len(told)
    if not left:
        return "\n".join(told)
    return "\n".join([*(told or [lines[0][:most]]), f"({left} more; ask for a shorter or later window)"])
