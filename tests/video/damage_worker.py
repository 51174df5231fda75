"""Read damaged copies of a video, one after the other; a line per copy says which, a last one counts the outcomes.

It runs in a process of its own, so that a crash in native code is seen: the copy at fault is the last line.
"""

import json
import random
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from m1lite.records import Answer, Sample, Status, Task, ToolCall
from m1lite.toolbox import Toolbox
from m1lite.toolbox.classical import CLASSICAL_TOOLS
from m1lite.toolbox.clips import ClipTools
from m1lite.video.base import VideoError
from m1lite.video.cache import FrameCache
from m1lite.video.media import media_pixels
from m1lite.video.policy import VideoPolicy
from m1lite.video.reader import open_video


def damaged(content: bytes, seed: int) -> bytes:
    """Cut a file, flip bits, overwrite, take out, repeat or zero a stretch; half of it in the index of the file."""
    draw = random.Random(seed)
    index = content.index(b"moov")
    place = draw.randrange(index, len(content)) if draw.random() < 0.5 else draw.randrange(len(content))
    length = draw.choice([1, 2, 4, 16, 256])
    kind = seed % 6
    if kind == 0:
        return content[:place]
    if kind == 1:
        copy = bytearray(content)
        for _ in range(draw.choice([1, 3, 10, 100])):
            where = draw.randrange(index, len(copy)) if draw.random() < 0.5 else draw.randrange(len(copy))
            copy[where] ^= 1 << draw.randrange(8)
        return bytes(copy)
    new = {2: draw.randbytes(length), 3: b"", 4: content[place : place + length] * 2, 5: bytes(length)}[kind]
    return content[:place] + new + content[place + length :]


def outcome(path: Path, opener) -> str:
    """Try all ways to read; every one gives frames of the size that the video says, or an error of its own kind."""
    try:
        video = opener(path)
        found = video.metadata
        middle = found.duration / 2
        for nearest_key in (False, True):
            frames = video.frames_at([0, middle, found.duration], nearest_key=nearest_key)
            assert tuple(frames.pixels.shape) == (3, 3, found.height, found.width)
        video.frames_between(0, min(middle, 1), size=(8, 12))
    except VideoError as error:
        return "VideoError" if str(path) in str(error) else "error without a name"
    return "frames"


class AllTools:
    """Calls every tool on a copy, through the runner: each gives a result, and an error says what is wrong with it."""

    def __init__(self, policy: VideoPolicy):
        clips = ClipTools()(["video_clip", "crop_video", "zoom", "get_frames"])
        self.frames = FrameCache(2**26, opener=partial(open_video, policy=policy))
        self.toolbox = Toolbox([*CLASSICAL_TOOLS, *clips], self.frames, deadline_seconds=20, workers=4)

    def __call__(self, path: Path) -> str:
        sample = Sample(id="a", video=str(path), duration=4.0, task=Task.CHOICE, question="", answer=Answer())
        results = self.toolbox.run([(sample, ToolCall(tool=name, args=args)) for name, args in CALLS])
        worst = "frames"
        for result in results:
            said = result.error or ""
            assert result.status in (Status.OK, Status.TOOL_ERROR), said
            if said:
                assert "VideoError: " in said or "`seconds` holds" in said or "The video ends at" in said, said
                worst = "VideoError"
            try:
                for media in result.media:
                    media_pixels(self.frames, media)
            except VideoError:
                worst = "VideoError"
        return worst


CALLS = [
    ("global_sampling", {"num_frames": 4}),
    ("video_retrieval", {"query": "red-square"}),
    ("image_retrieval", {"query": "red-square", "start": 1, "end": 3}),
    ("time_step_retrieval", {"start": 1, "end": 4}),
    ("rough_browser", {"question": "objects"}),
    ("fine_browser", {"question": "objects", "start": 0, "end": 4}),
    ("grounding_tool", {"event": "blue-circle"}),
    ("spatial_tool", {"question": "red-square"}),
    ("video_clip", {"start": 0, "end": 4}),
    ("crop_video", {"start_time": 3, "end_time": 4}),
    ("zoom", {"start": 0, "end": 2, "box": [0, 0, 0.5, 0.5]}),
    ("get_frames", {"times": [0, 1.9, 3.9]}),
]


def main(source: Path, folder: Path, first: int, last: int) -> None:
    """Read the copies numbered from ``first`` to before ``last``."""
    content, counts = source.read_bytes(), Counter()
    policy = VideoPolicy(max_frames=10_000, max_pixels=2**20, max_decoded_bytes=2**26)
    openers = {
        "torchcodec": partial(open_video, backend="torchcodec", policy=policy),
        "pyav": partial(open_video, backend="pyav", policy=policy),
    }
    tools = AllTools(policy)
    for seed in range(first, last):
        path = folder / f"{seed}{source.suffix}"
        path.write_bytes(damaged(content, seed))
        for name in sys.argv[5:]:
            print(seed, name, flush=True)
            counts[f"{name} {tools(path) if name == 'tools' else outcome(path, openers[name])}"] += 1
        path.unlink()
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
