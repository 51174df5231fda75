"""``python -m m1lite.report.viewer outputs/<run>``: the episodes of a run as one HTML file that needs nothing else.

Reads ``trajectories.jsonl``, scores the answers again and looks up frames where a video is still readable. How a page
looks is page.py's.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.io import encode_jpeg

from m1lite.ledger import write_whole
from m1lite.records import Answer, Box, Sample, Span, Task
from m1lite.report.page import Entry, page
from m1lite.rewards.scoring import score_answers
from m1lite.video.base import VideoError
from m1lite.video.reader import VideoReader, open_video

FRAMES_PER_EPISODE = 8
HEIGHT = 96
"""Pixels of a thumbnail."""
_KEYS = {"step", "split", "sample", "video", "task", "question", "truth", "episode", "visible", "answer", "agents"}


class ViewerError(ValueError):
    """A run that cannot be shown; says why and what to name instead."""


def build(run: str | Path, *, num_episodes: int = 300, num_frames: int = 300) -> str:
    """Make the page of a run.

    Args:
        run: its folder.
        num_episodes: at most as many are shown, evenly spread over the run.
        num_frames: embedded thumbnails, at most.

    Raises:
        ViewerError: if the folder holds no episodes.
    """
    chosen, total, unreadable = read_episodes(Path(run), num_episodes)
    notes = [f"{len(chosen)} of {total} episodes" + (", evenly spread over the run" if len(chosen) < total else "")]
    if unreadable:
        notes.append(f"{unreadable} of the file's lines hold no whole episode and are left out")
    frames, missing = thumbnails(chosen, num_frames)
    if missing:
        notes.append(f"{missing} videos cannot be read any more, so their frames are missing")
    entries = [Entry(row=row, scores=scores(row), frames=shown) for row, shown in zip(chosen, frames, strict=True)]
    return page(Path(run).resolve().name, entries, notes)


def read_episodes(run: Path, limit: int) -> tuple[list[dict[str, Any]], int, int]:
    """Read episodes of all ranks, evenly spread where there are more than asked for.

    Returns:
        The episodes in order of the step, how many whole lines there are, and how many lines hold no episode.

    Raises:
        ViewerError: if there is no file or no episode in it, or ``limit`` is below 1.
    """
    if limit < 1:
        raise ViewerError(f"`num_episodes` is {limit}; show at least 1.")
    files = sorted(run.glob("trajectories*.jsonl"))
    if not files:
        raise ViewerError(
            f"{run} holds no trajectories.jsonl; name the folder of a run that has trained, under outputs/."
        )
    total = sum(1 for _ in _lines(files))
    wanted = {place * total // min(limit, total) for place in range(min(limit, total))} if total else set()
    rows = [_episode(line) for place, line in enumerate(_lines(files)) if place in wanted]
    whole = [row for row in rows if row is not None]
    if not whole:
        raise ViewerError(f"{files[0]} holds no episode; the run was stopped before its first step ended.")
    whole.sort(key=lambda row: (row["step"], row["split"]))
    return whole, total, len(rows) - len(whole)


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Score the team's and every agent's answer in [0, 1]; nothing where the truth is not of the task's form."""
    try:
        about = {"video": row["video"], "duration": 0.0, "question": row["question"]}
        sample = Sample(id=row["sample"], task=Task(row["task"]), answer=_answer(row["truth"]) or Answer(), **about)
        given = {"team": row["answer"], **{name: agent["answer"] for name, agent in row["agents"].items()}}
        found = score_answers([sample] * len(given), [_answer(values) for values in given.values()])
    except (ValueError, TypeError):
        return {}
    return dict(zip(given, found, strict=True))


def thumbnails(rows: Sequence[Mapping[str, Any]], limit: int) -> tuple[list[list[tuple[float, str]]], int]:
    """Embed what the tools were pointed at.

    Args:
        rows: episodes.
        limit: thumbnails over all episodes; a frame that several episodes show counts once.

    Returns:
        For each episode (second, JPEG in base64) in order of time, and how many videos cannot be read.
    """
    readers: dict[str, VideoReader | None] = {}
    known: dict[tuple[str, float], str] = {}
    shown: list[list[tuple[float, str]]] = []
    for row in rows:
        uri = str(row["video"])
        if uri not in readers:
            readers[uri] = _open(uri)
        reader = readers[uri]
        seconds = looked_at(row, reader.metadata.duration) if reader is not None else []
        for second in seconds:
            if reader is not None and (uri, second) not in known and len(known) < limit:
                known[uri, second] = _jpeg(reader, second)
        shown.append([(second, known[uri, second]) for second in seconds if known.get((uri, second))])
    return shown, sum(reader is None for reader in readers.values())


def looked_at(row: Mapping[str, Any], duration: float) -> list[float]:
    """Choose seconds to show: the frames that results refer to, else start, middle and end of every call's window.

    Args:
        row: an episode.
        duration: of its video in seconds; a call that names no window means all of it.

    Returns:
        At most ``FRAMES_PER_EPISODE`` ascending seconds inside the video.

    Example:
        >>> call = {"tool": "look", "args": {"start": 2.0, "end": 4.0}, "media": []}
        >>> looked_at({"agents": {"ada": {"calls": [call]}}}, duration=9.0)
        [2.0, 3.0, 4.0]
    """
    found: set[float] = set()
    for agent in row["agents"].values():
        for call in agent["calls"]:
            times = [second for media in call["media"] for second in media["timestamps"]]
            if not times:
                start, end = (_number(call["args"].get(name)) for name in ("start", "end"))
                start, end = 0.0 if start is None else start, duration if end is None else end
                times = [start, (start + end) / 2, end]
            found |= {round(min(max(second, 0.0), duration), 1) for second in times}
    ascending = sorted(min(second, duration) for second in found)
    step = max(1.0, len(ascending) / FRAMES_PER_EPISODE)
    return [ascending[int(place * step)] for place in range(min(len(ascending), FRAMES_PER_EPISODE))]


def _lines(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        with file.open(encoding="utf-8") as opened:
            yield from opened


def _episode(line: str) -> dict[str, Any] | None:
    """Read a line; None for one that was cut off or is no episode."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and row.keys() >= _KEYS else None


def _answer(values: Mapping[str, Any] | None) -> Answer | None:
    if values is None:
        return None
    return Answer(
        text=values.get("text"),
        number=values.get("number"),
        spans=tuple(Span(**span) for span in values.get("spans", ())),
        boxes=tuple(Box(**box) for box in values.get("boxes", ())),
        events=tuple(values.get("events", ())),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _open(uri: str) -> VideoReader | None:
    try:
        return open_video(uri)
    except VideoError:
        return None


def _jpeg(reader: VideoReader, second: float) -> str:
    """Encode a thumbnail, or give an empty text where the frame cannot be decoded."""
    width = max(1, round(reader.metadata.width * HEIGHT / reader.metadata.height))
    try:
        pixels: Tensor = reader.frames_at([second], size=(HEIGHT, width)).pixels[0]
    except VideoError:
        return ""
    return base64.b64encode(bytes(encode_jpeg(pixels, quality=80).tolist())).decode()


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(prog="python -m m1lite.report.viewer", description="Show a run's episodes.")
    parser.add_argument("run", type=Path, help="the folder of a run, such as outputs/2026-01-31/12-00-00")
    parser.add_argument("--output", type=Path, help="the HTML file; viewer.html in the run's folder by default")
    parser.add_argument("--episodes", type=int, default=300, help="how many to show at most")
    parser.add_argument("--frames", type=int, default=300, help="how many thumbnails to embed at most")
    arguments = parser.parse_args()
    output = arguments.output or arguments.run / "viewer.html"
    try:
        text = build(arguments.run, num_episodes=arguments.episodes, num_frames=arguments.frames)
    except ViewerError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    write_whole(output, text)
    print(f"{output} ({len(text) / 1e6:.1f} MB); open it in a browser.")


if __name__ == "__main__":
    main()
