"""Hundreds of damaged copies of a good video: no crash, no hang, always frames or a VideoError."""

import json
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from m1lite.video.base import VideoError
from m1lite.video.policy import VideoPolicy
from m1lite.video.reader import open_video

NUM_COPIES = 240


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Four seconds of a moving picture with sound, frames out of order, a key frame each second."""
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    draw = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=10, options={"g": "10", "bf": "2"})
        picture.height, picture.width, picture.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16000)
        noise = draw.integers(0, 255, (48, 128, 3), dtype=np.uint8)
        for place in range(40):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[:, place : place + 64]), format="rgb24")
            container.mux(picture.encode(frame))
        for place in range(64):
            samples = draw.normal(size=(1, 1024)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, place * 1024, Fraction(1, 16000)
            container.mux(sound.encode(frame))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchcodec", "pyav", "tools"])
def test_damaged_copies_give_frames_or_a_video_error(good, tmp_path, name):
    """``tools``: every tool is called on every copy, through the runner."""
    worker = Path(__file__).with_name("damage_worker.py")
    command = [sys.executable, worker, good, tmp_path, "0", str(NUM_COPIES), name]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"copy {lines[-1] if lines else 'none'}: {done.stderr[-2000:]}"
    counts = Counter(json.loads(lines[-1]))
    print(counts)
    assert counts.total() == NUM_COPIES
    assert min(counts[f"{name} frames"], counts[f"{name} VideoError"]) >= NUM_COPIES // 8


def box(kind, content):
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def numbers(*values):
    return b"".join(value.to_bytes(4, "big") for value in values)


def patched(content, kind, offset, value):
    """Overwrite a 32-bit number in the first box of a kind."""
    place = content.index(kind) + 4 + offset
    return content[:place] + numbers(value) + content[place + 4 :]


def test_a_header_of_a_billion_frames(good, tmp_path, backend):
    """A constant size of 1 byte per frame needs no table, so that a kilobyte of header claims any number."""
    path = tmp_path / "many.mp4"
    path.write_bytes(patched(patched(good.read_bytes(), b"stsz", 4, 1), b"stsz", 8, 10**9))
    with pytest.raises(VideoError, match=r"many\.mp4': it has 1000000000 frames, allowed are 20000000"):
        open_video(path, backend=backend)
    content = patched(patched(good.read_bytes(), b"stsz", 4, 1), b"stsz", 8, 10**7)
    path.write_bytes(content)
    match = rf"its header claims 10000000 bytes of frames or sound, but the file has only {len(content)}"
    with pytest.raises(VideoError, match=match):
        open_video(path, backend=backend)


def test_a_fragment_of_a_billion_frames(good, tmp_path):
    path = tmp_path / "fragment.mp4"
    fragment = box(b"moof", box(b"traf", box(b"trun", numbers(0, 10**9))))
    path.write_bytes(good.read_bytes() + fragment)
    with pytest.raises(VideoError, match=r"it has 1000000000 frames"):
        open_video(path)


def test_a_huge_picture_is_refused_before_it_is_decoded(good, tmp_path, backend):
    small = VideoPolicy(max_pixels=48 * 64 - 1)
    with pytest.raises(VideoError, match=r"good\.mp4': it has 3072 pixels per frame, allowed are 3071\. Raise `max_p"):
        open_video(good, backend=backend, policy=small)


def test_an_image_that_unpacks_to_gigapixels(tmp_path):
    import zlib

    def chunk(kind, content):
        return numbers(len(content)) + kind + content + numbers(zlib.crc32(kind + content))

    header = numbers(60_000, 60_000) + bytes([8, 2, 0, 0, 0])
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(VideoError, match=r"(it has 3600000000 pixels per frame|exceeds limit)"):
        open_video(tmp_path, image_fps=1)


def test_limits_on_frames_seconds_bytes_and_what_one_call_gives(good):
    for limits, said in [
        ({"max_frames": 39}, r"it has 40 frames, allowed are 39\. Raise `max_frames`"),
        ({"max_seconds": 3.9}, r"it has 4(\.\d+)? seconds, allowed are 3\.9\. Raise `max_seconds`"),
        ({"max_bytes": 1000}, r"it has \d+ bytes, allowed are 1000\. Raise `max_bytes`"),
    ]:
        with pytest.raises(VideoError, match=said):
            open_video(good, policy=VideoPolicy(**limits))
    video = open_video(good, policy=VideoPolicy(max_decoded_bytes=2 * 3 * 48 * 64))
    assert len(video.frames_at([0, 1])) == 2
    with pytest.raises(VideoError, match=r"the frames asked for take 27648 bytes, allowed are 18432"):
        video.frames_at([0, 1, 2])
    assert len(video.frames_at([0, 1, 2], size=(24, 32))) == 3


@pytest.mark.parametrize("times", [[float("nan")], [-1.0], [float("inf")], [-float("inf")], [1e300]])
@pytest.mark.parametrize("nearest_key", [False, True])
def test_impossible_times(good, backend, times, nearest_key):
    video = open_video(good, backend=backend)
    with pytest.raises(ValueError, match=r"`seconds` holds .*good\.mp4' lasts from 0 to 4"):
        video.frames_at(times, nearest_key=nearest_key)
    with pytest.raises(ValueError, match=r"(0 <= start < end|`seconds` holds)"):
        video.frames_between(0, times[0])
    with pytest.raises(ValueError, match=r"(0 <= start < end|`seconds` holds)"):
        video.frames_between(0, times[0], fps=1)
