"""From the files that VideoChat-R1 trains on to rows of our own form: Charades-STA, NExT-GQA and GOT-10k.

Rows are read by readers/jsonl.py, which says what stands in them and checks them.

    rows = charades_rows(json.loads(Path("charades_train.json").read_text()))
    write_rows(rows, Path("clips/train.jsonl"))
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from m1lite.video.reader import open_video

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Row = dict[str, Any]


def charades_rows(found: Mapping[str, Mapping[str, Any]], *, ending: str = ".mp4") -> list[Row]:
    """Make one question of every sentence, in lower case and without its full stop; ActivityNet has the same form.

    Args:
        found: video id to ``{duration, timestamps: [[start, end]], sentences: [text]}``.
        ending: of the video files.

    Returns:
        Rows of task ``grounding``. Spans without length, or behind the video's end, are left out.

    Example:
        >>> rows = charades_rows({"v": {"duration": 9.0, "timestamps": [[1, 3.5]], "sentences": ["A man sits. "]}})
        >>> rows[0]["question"], rows[0]["spans"]
        ('a man sits', [[1, 3.5]])
    """
    rows = []
    for video, entry in found.items():
        duration = float(entry["duration"])
        for (start, end), sentence in zip(entry["timestamps"], entry["sentences"], strict=True):
            if 0 <= start < min(end, duration):
                row: Row = {"video": video + ending, "task": "grounding", "question": _plain(sentence)}
                rows.append({**row, "spans": [[start, min(end, duration)]], "duration": duration})
    return rows


def next_gqa_rows(found: Sequence[Mapping[str, Any]], *, spans: bool = True, ending: str = ".mp4") -> list[Row]:
    """Make one multiple-choice question of every entry.

    Args:
        found: entries ``{video, question, options: ["(A) ..."], duration, glue: [[start, end]], answer: "(C)"}``.
        spans: whether the periods that show it are asked for too: task ``grounded_qa``, else ``choice``.
        ending: of the video files.

    Raises:
        ValueError: if an answer is none of the options.
    """
    rows = []
    for entry in found:
        marked = [option.strip() for option in entry["options"]]
        letter = entry["answer"].strip()
        (right, *others) = [option for option in marked if option.startswith(letter)] or [None]
        if right is None or others:
            raise ValueError(f"`answer` {letter!r} of {entry['question']!r} must begin one of the options {marked}.")
        row: Row = {
            "video": f"{entry['video']}{ending}",
            "task": "grounded_qa" if spans else "choice",
            "question": entry["question"].strip(),
            "options": [_content(option) for option in marked],
            "answer": _content(right),
            "duration": float(entry["duration"]),
        }
        rows.append({**row, "spans": entry["glue"]} if spans else row)
    return rows


def got10k_rows(found: Sequence[Mapping[str, Any]], root: Path) -> list[Row]:
    """Make one question of every video: eight frames from its first to its last, evenly spread, and their boxes.

    The released loader takes seven frames and shows the last one twice, while the truth has eight distinct boxes; that
    these lie on evenly spread frames, and are shares of the picture's sides, is our reading.

    Args:
        found: entries ``{path, object, gt: 8 boxes [left, top, right, bottom] from 0 to 1}``; the first box is given in
            the question.
        root: folder of the videos, which are opened for their length and size.

    Raises:
        VideoError: if a video cannot be read.
    """
    rows = []
    for entry in found:
        video = open_video(str(root / entry["path"])).metadata
        shares, last = entry["gt"], video.num_frames - 1
        frames = [round(last * place / (len(shares) - 1)) for place in range(len(shares))]
        first = ", ".join(f"{edge:.3f}" for edge in shares[0])
        row: Row = {"video": entry["path"], "task": "tracking"}
        row["question"] = f"Follow the {entry['object']}, which is at [{first}] in the first frame."
        row["times"] = [video.duration * (frame + 0.5) / video.num_frames for frame in frames]
        sides = (video.width, video.height, video.width, video.height)
        row["boxes"] = [[edge * side for edge, side in zip(box, sides, strict=True)] for box in shares]
        rows.append(row)
    return rows


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _plain(sentence: str) -> str:
    return sentence.strip().removesuffix(".").strip().lower()


def _content(option: str) -> str:
    """Take the letter off ``(A) a dog``."""
    return option.partition(")")[2].strip()
