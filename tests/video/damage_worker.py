"""Read damaged copies of a video, one after the other; a line per copy says which, a last one counts the outcomes.

It runs in a process of its own, so that a crash in native code is seen: the copy at fault is the last line.
"""

import json
import random
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from m1lite.video.base import VideoError
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


def main(source: Path, folder: Path, first: int, last: int) -> None:
    """Read the copies numbered from ``first`` to before ``last``."""
    content, counts = source.read_bytes(), Counter()
    policy = VideoPolicy(max_frames=10_000, max_pixels=2**20, max_decoded_bytes=2**26)
    openers = {
        "torchcodec": partial(open_video, backend="torchcodec", policy=policy),
        "pyav": partial(open_video, backend="pyav", policy=policy),
    }
    for seed in range(first, last):
        path = folder / f"{seed}{source.suffix}"
        path.write_bytes(damaged(content, seed))
        for name in sys.argv[5:]:
            print(seed, name, flush=True)
            counts[f"{name} {outcome(path, openers[name])}"] += 1
        path.unlink()
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
