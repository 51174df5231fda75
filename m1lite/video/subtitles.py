"""Read what is said in a video from a text track beside it: SubRip, WebVTT and the JSON of LongVideoBench.

Needs the extra ``video`` for the first two (webvtt-py parses them).
"""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m1lite.video.base import VideoError
from m1lite.video.policy import VideoPolicy
from m1lite.video.sampling import Window

MAX_BYTES = 64 * 2**20
"""Of a text track; a day of speech takes about two megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtitle:
    """A text that is shown for some time."""

    start: float
    """Seconds since the first frame of the video, at least 0."""
    end: float
    """Seconds, above ``start``; infinite for a last text of unknown end."""
    text: str
    """Without markup; lines are joined by a space."""


def read_subtitles(
    path: str | Path, *, shift_seconds: float = 0.0, policy: VideoPolicy | None = None
) -> list[Subtitle]:
    """Read a text track.

    Args:
        path: a local ``.srt``, ``.vtt`` or ``.json`` file; ``file://`` is allowed.
        shift_seconds: added to all times, such as minus LongVideoBench's ``starting_timestamp_for_subtitles``; what
            then ends before the video begins is left out.
        policy: where the file may lie; ``None`` is ``VideoPolicy()``.

    Returns:
        Texts in the order of their starts; empty ones and those that end before they start are left out.

    Raises:
        ModuleNotFoundError: if the extra ``video`` is missing.
        VideoError: if the file is missing, refused, too large or of another form.
    """
    uri = str(path)
    file = (policy or VideoPolicy()).local_path(uri)
    if file is None:
        raise _unreadable(uri, "it is not a local file", "Download it first.")
    if not file.is_file():
        raise _unreadable(uri, "the file does not exist", "Check the path.")
    if file.stat().st_size > MAX_BYTES:
        raise _unreadable(uri, f"it has more than {MAX_BYTES} bytes", "Give a file of subtitles.")
    suffix = file.suffix.lower()
    if suffix not in (".srt", ".vtt", ".json"):
        raise _unreadable(uri, f"its ending is {suffix!r}", "Give a .srt, .vtt or .json file.")
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # old SubRip files; every byte is a sign there
    rows = _json_rows(uri, text) if suffix == ".json" else _caption_rows(uri, text, suffix[1:])
    return _ordered(rows, shift_seconds)


def subtitles_between(subtitles: Sequence[Subtitle], start: float, end: float) -> list[Subtitle]:
    """Choose the texts that are shown at some time in ``[start, end)``, in seconds.

    Example:
        >>> said = [Subtitle(start=0, end=2, text="a"), Subtitle(start=2, end=5, text="b")]
        >>> [one.text for one in subtitles_between(said, 2, 3)]
        ['b']
    """
    return [one for one in subtitles if one.start < end and one.end > start]


def subtitles_by_window(subtitles: Sequence[Subtitle], windows: Sequence[Window]) -> list[str]:
    """Give what is said in each window, such as a shot or a clip; a text that spans two windows stands in both.

    Example:
        >>> said = [Subtitle(start=0, end=2, text="a"), Subtitle(start=1, end=5, text="b")]
        >>> subtitles_by_window(said, [(0, 2), (2, 8), (8, 9)])
        ['a b', 'b', '']
    """
    return [" ".join(one.text for one in subtitles_between(subtitles, *window)) for window in windows]


def clock_seconds(clock: str) -> float:
    """Read ``[hours:]minutes:seconds``, with a point or a comma before the fraction.

    Raises:
        ValueError: if it is no such time.

    Example:
        >>> clock_seconds("01:02:03,500"), clock_seconds("02:03.5")
        (3723.5, 123.5)
    """
    parts = [float(part) for part in clock.strip().replace(",", ".").split(":")]
    if not 2 <= len(parts) <= 3 or any(not 0 <= part < math.inf for part in parts):
        raise ValueError(f"{clock!r} is no time; write hours:minutes:seconds.")
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def _caption_rows(uri: str, text: str, form: str) -> list[tuple[float, float, str]]:
    try:
        import webvtt
        from webvtt.errors import MalformedFileError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"Reading .{form} subtitles needs webvtt-py: pip install 'm1lite[video]'.") from error
    try:
        captions: Any = webvtt.from_buffer(io.StringIO(text), form)
        return [(clock_seconds(one.start), clock_seconds(one.end), html.unescape(one.text)) for one in captions]
    except (MalformedFileError, ValueError) as error:
        raise _unreadable(uri, f"it is no .{form} file ({error})", "Check the file.") from error


def _json_rows(uri: str, text: str) -> list[tuple[float, float, str]]:
    """Read both forms of LongVideoBench: clocks ``start`` and ``end`` with ``line``, or ``timestamp`` with ``text``."""
    try:
        rows = json.loads(text)
        return [_json_row(row) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        found = f"it is no list of texts with times ({type(error).__name__}: {error})"
        raise _unreadable(uri, found, "Give rows of start, end and line, or of timestamp and text.") from error


def _json_row(row: Mapping[str, Any]) -> tuple[float, float, str]:
    if "timestamp" in row:
        start, end = row["timestamp"]
        return float(start), math.inf if end is None else float(end), str(row["text"])
    return _clock_or_seconds(row["start"]), _clock_or_seconds(row["end"]), str(row["line"])


def _clock_or_seconds(time: Any) -> float:
    return clock_seconds(time) if isinstance(time, str) else float(time)


def _ordered(rows: Sequence[tuple[float, float, str]], shift_seconds: float) -> list[Subtitle]:
    shifted = sorted((start + shift_seconds, end + shift_seconds, " ".join(text.split())) for start, end, text in rows)
    return [
        Subtitle(start=max(start, 0.0), end=end, text=text)
        for start, end, text in shifted
        if text and max(start, 0.0) < end and start < math.inf
    ]


def _unreadable(uri: str, found: str, remedy: str) -> VideoError:
    return VideoError(f"Cannot read the subtitles {uri!r}: {found}. {remedy}")
