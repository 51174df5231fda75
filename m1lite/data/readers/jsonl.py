"""Your own data: one JSON object per line in ``<root>/<split>.jsonl``, beside the video files.

======== ======================================================================================
field    what stands in it
======== ======================================================================================
video    path relative to ``root`` (or absolute), or a URI
task     ``grounding choice counting grounded_qa tracking caption``
question text, as the agents read it
options  choice: two or more different texts; grounded_qa may have them too
answer   choice: the text of the right option; counting: a whole number; grounded_qa: a short text, or the text of
         the right option; caption: the list of events, in order
spans    grounding: one ``[start, end]`` in seconds; grounded_qa: one or several
times    tracking: the asked seconds
boxes    tracking: one ``[left, top, right, bottom]`` in pixels of the video for each of ``times``
id       optional, unique in the file; ``<split>-<line>`` when left out
duration optional, seconds; read from the video when left out
tags     optional, labels for grouped reports: ``{"source": "kitchen"}``
======== ======================================================================================

A span may end up to one second after the video (annotations are often rounded up) and is clipped to it.
All broken rows of a file are named in one error. What a task needs is written down in ``_NEEDS`` and nowhere else.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m1lite.records import Answer, Box, Sample, Span, Task
from m1lite.video.reader import VideoError, open_video

if TYPE_CHECKING:
    from collections.abc import Callable

    from m1lite.video.reader import VideoMetadata

_NEEDS = {
    Task.GROUNDING: {"spans"},
    Task.CHOICE: {"options", "answer"},
    Task.COUNTING: {"answer"},
    Task.GROUNDED_QA: {"answer", "spans"},
    Task.TRACKING: {"times", "boxes"},
    Task.CAPTION: {"answer"},
}
_MAY = {Task.GROUNDED_QA: {"options"}}
_ALWAYS = ("video", "task", "question")
_OPTIONAL = ("id", "duration", "tags")
_TRUTH = ("options", "answer", "spans", "times", "boxes")
_MAX_OVERSHOOT = 1.0
_MAX_SHOWN = 100


class DataError(ValueError):
    """Data that cannot be used: names the file and line, the field, its value, what is allowed and the remedy."""


def read_jsonl(root: str | Path, split: str) -> list[Sample]:
    """Read the samples of one split.

    Args:
        root: folder that holds ``<split>.jsonl``; relative video paths start here.
        split: name of the file without its ending, for example ``"train"``.

    Returns:
        One sample per line, in the order of the file. Empty lines are skipped.

    Raises:
        DataError: if the folder or file is missing or empty, or rows are broken (all of them are named).
    """
    path = _file_of(Path(root), split)
    videos = _Videos(Path(root))
    samples: dict[str, Sample] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            sample = _sample(line, f"{split}-{number}", videos)
            if sample.id in samples:
                raise _RowError("id", sample.id, "an id of its own", f"line {lines[sample.id]} has it already")
        except _RowError as broken:
            problems.append(f"{path}:{number}: {broken}")
            continue
        samples[sample.id], lines[sample.id] = sample, number
    if problems:
        hidden = len(problems) - _MAX_SHOWN
        more = [f"... and {hidden} more broken rows"] if hidden > 0 else []
        raise DataError("\n".join([f"{len(problems)} broken row(s):", *problems[:_MAX_SHOWN], *more]))
    if not samples:
        raise DataError(f"{path} holds no row; write one JSON object per line, or leave the split out.")
    return list(samples.values())


def _file_of(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(f"The dataset root {root} is not a folder; give the folder that holds {split}.jsonl.")
    path = root / f"{split}.jsonl"
    if not path.is_file():
        found = sorted(file.stem for file in root.glob("*.jsonl"))
        raise DataError(f"{path} does not exist; the splits in {root} are {found or 'none'} (one <split>.jsonl each).")
    return path


class _RowError(Exception):
    """One broken field of one row."""

    def __init__(self, field: str, value: object, allowed: str, remedy: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 120 else shown[:117] + "..."
        super().__init__(f"`{field}` is {shown}; allowed: {allowed}; {remedy}.")


class _Videos:
    """The metadata of the videos under one root, each opened once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, VideoMetadata | str] = {}

    def uri(self, video: str) -> str:
        """Give the path or URI to open, or raise when the file is missing."""
        if "://" in video:
            return video
        path = self.root / video
        if not path.is_file():
            raise _RowError(
                "video", video, f"a file under {self.root} (or an absolute path)", "copy it there or correct the path"
            )
        return str(path)

    def metadata(self, uri: str) -> VideoMetadata:
        """Open the video for its duration and size, or raise when it cannot be read."""
        if uri not in self._known:
            try:
                self._known[uri] = open_video(uri).metadata
            except VideoError as error:
                self._known[uri] = str(error)
        known = self._known[uri]
        if isinstance(known, str):
            raise _RowError("video", uri, "a readable video", f"replace the file or drop the row ({known})")
        return known


def _sample(line: str, default_id: str, videos: _Videos) -> Sample:
    row = _parsed(line)
    task = _task(row)
    _check_fields(row, task)
    uri = videos.uri(_text(row, "video"))
    duration = videos.metadata(uri).duration if row.get("duration") is None else _number(row, "duration")
    if duration <= 0:
        raise _RowError("duration", duration, "seconds above 0", "leave it out to read it from the video")
    return Sample(
        id=_text(row, "id") if row.get("id") is not None else default_id,
        video=uri,
        duration=duration,
        task=task,
        question=_text(row, "question"),
        answer=_answer(row, task, duration, lambda: videos.metadata(uri)),
        options=_options(row) if row.get("options") else (),
        times=_times(row, duration) if task is Task.TRACKING else (),
        size=_size(videos.metadata(uri)) if task is Task.TRACKING else None,
        tags=_tags(row),
    )


def _parsed(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _RowError("row", line, "one JSON object per line", f"at column {error.colno}: {error.msg}") from None
    if not isinstance(row, dict):
        raise _RowError("row", row, "one JSON object per line", 'write {"video": ..., "task": ..., "question": ...}')
    return row


def _task(row: dict[str, Any]) -> Task:
    tasks = [task.value for task in Task]
    if row.get("task") not in tasks:
        raise _RowError("task", row.get("task"), " ".join(tasks), "name the task of the question")
    return Task(row["task"])


def _check_fields(row: dict[str, Any], task: Task) -> None:
    """Refuse a missing, a misspelt and a useless field, each with its name."""
    needed = {*_ALWAYS, *_NEEDS[task]}
    for field in sorted(needed):
        if row.get(field) is None:
            raise _RowError(field, row.get(field), f"given for task {task}", f"add it; {task} needs {sorted(needed)}")
    for field, value in row.items():
        if field in _TRUTH and field not in needed | _MAY.get(task, set()) and value not in (None, [], ""):
            raise _RowError(field, value, f"empty for task {task}", "remove it or correct the task")
        if field not in (*_ALWAYS, *_OPTIONAL, *_TRUTH):
            fields = " ".join((*_ALWAYS, *_TRUTH, *_OPTIONAL))
            raise _RowError(field, value, f"one of the fields {fields}", "correct the name or put it under `tags`")


def _answer(row: dict[str, Any], task: Task, duration: float, metadata: Callable[[], VideoMetadata]) -> Answer:
    match task:
        case Task.GROUNDING:
            return Answer(spans=_spans(row, duration))
        case Task.CHOICE:
            return Answer(text=_right_option(row))
        case Task.COUNTING:
            return Answer(number=_count(row))
        case Task.GROUNDED_QA:
            text = _right_option(row) if row.get("options") else _text(row, "answer")
            return Answer(text=text, spans=_spans(row, duration, most=None))
        case Task.TRACKING:
            return Answer(boxes=_boxes(row, len(_times(row, duration)), metadata()))
        case Task.CAPTION:
            return Answer(events=_texts(row, "answer", at_least=1))


def _text(row: dict[str, Any], field: str) -> str:
    value = row[field]
    if not isinstance(value, str) or not value.strip():
        raise _RowError(field, value, "a text that is not empty", "write it in quotes")
    return value.strip()


def _texts(row: dict[str, Any], field: str, *, at_least: int) -> tuple[str, ...]:
    value = row[field]
    good = isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)
    if not good or len(value) < at_least:
        raise _RowError(field, value, f"a list of {at_least} or more texts", 'write ["first", "second"]')
    return tuple(item.strip() for item in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(row: dict[str, Any], field: str) -> float:
    value = row[field]
    if not _is_number(value):
        raise _RowError(field, value, "a finite number", "write it without quotes")
    return float(value)


def _count(row: dict[str, Any]) -> float:
    value = row["answer"]
    if not _is_number(value) or value < 0 or value != int(value):
        raise _RowError("answer", value, "a whole number from 0", "write the count without quotes")
    return float(value)


def _options(row: dict[str, Any]) -> tuple[str, ...]:
    options = _texts(row, "options", at_least=2)
    if len(set(options)) < len(options):
        raise _RowError("options", list(options), "texts that differ", "remove the repeated option")
    return options


def _right_option(row: dict[str, Any]) -> str:
    options, text = _options(row), _text(row, "answer")
    if text not in options:
        raise _RowError("answer", text, f"one of {list(options)}", "write the option's text, not its letter")
    return text


def _spans(row: dict[str, Any], duration: float, *, most: int | None = 1) -> tuple[Span, ...]:
    value = row["spans"]
    if not isinstance(value, list) or not 1 <= len(value) <= (most or len(value)):
        allowed = "exactly one [start, end]" if most == 1 else "one or several [start, end]"
        raise _RowError("spans", value, allowed, "write seconds as [[start, end]]")
    return tuple(_span(value, pair, duration) for pair in value)


def _span(value: list[Any], pair: Any, duration: float) -> Span:
    remedy = "write seconds as [[start, end]]"
    if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_number, pair)):
        raise _RowError("spans", value, "two finite numbers", remedy)
    start, end = map(float, pair)
    if not 0 <= start < end:
        raise _RowError("spans", value, "0 <= start < end", remedy)
    if start >= duration or end > duration + _MAX_OVERSHOOT:
        raise _RowError("spans", value, f"within the video's {duration:g} s", "clip the span or correct `duration`")
    return Span(start=start, end=min(end, duration))


def _size(metadata: VideoMetadata) -> tuple[int, int]:
    return metadata.height, metadata.width


def _times(row: dict[str, Any], duration: float) -> tuple[float, ...]:
    value = row["times"]
    if not isinstance(value, list) or not value or not all(map(_is_number, value)):
        raise _RowError("times", value, "a list of seconds", "write [10.0, 14.5]")
    if not all(0 <= time < duration for time in value):
        raise _RowError("times", value, f"seconds in [0, {duration:g})", "ask only for times within the video")
    return tuple(map(float, value))


def _boxes(row: dict[str, Any], count: int, metadata: VideoMetadata) -> tuple[Box, ...]:
    value = row["boxes"]
    remedy = "write [[left, top, right, bottom], ...]"
    if not isinstance(value, list) or len(value) != count:
        raise _RowError("boxes", value, f"one box for each of the {count} times", remedy)
    boxes = []
    for box in value:
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise _RowError("boxes", box, "four finite numbers", remedy)
        left, top, right, bottom = map(float, box)
        if max(box) <= 1:
            remedy = "these look like shares of the frame: multiply by its width and height"
        if max(box) <= 1 or not (0 <= left < right <= metadata.width and 0 <= top < bottom <= metadata.height):
            allowed = f"pixels, left < right <= {metadata.width} and top < bottom <= {metadata.height}"
            raise _RowError("boxes", box, allowed, remedy)
        boxes.append(Box(left=left, top=top, right=right, bottom=bottom))
    return tuple(boxes)


def _tags(row: dict[str, Any]) -> dict[str, str]:
    tags = row.get("tags")
    if tags is None:
        return {}
    if not isinstance(tags, dict) or not all(isinstance(tag, str) for tag in tags.values()):
        raise _RowError("tags", tags, "texts by name", 'write {"source": "kitchen"}')
    return tags
