"""Decoding long videos: m1lite's reader against decord, PyAV and OpenCV, by processor time and memory.

``BENCH_VIDEOS`` names the folder where the videos are made once (about 1.3 GB), ``BENCH_ROUNDS`` how often each cell is
measured. Each reader runs in a fresh process with one thread, opens the file and gives RGB frames of the video's size,
all of them held at once. ``python benchmarks/bench_decode.py READER TASK VIDEO OUT`` is such a process.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(os.environ.get("BENCH_VIDEOS", Path(tempfile.gettempdir()) / "decode_bench"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
FPS = 25
PEERS = ("decord", "PyAV", "OpenCV")
TASKS = ("uniform", "window", "sweep")
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params")


@dataclass(frozen=True)
class Video:
    """How a video is made."""

    name: str
    size: str
    minutes: int
    encoder: tuple[str, ...]
    repeats: int = 1
    """The encoded part is repeated this often."""

    @property
    def path(self) -> Path:
        """Where it is made."""
        return FOLDER / f"{self.name}.mp4"

    @property
    def num_frames(self) -> int:
        """Frames of the whole video."""
        return self.minutes * 60 * FPS


VIDEOS = {
    video.name: video
    for gop in (50, 250)
    for video in (
        Video(f"h264_720p_10min_g{gop}", "1280x720", 10, (*X264, str(gop))),
        Video(f"hevc_720p_10min_g{gop}", "1280x720", 10, (*X265, f"keyint={gop}:pools=2:log-level=error")),
        Video(f"h264_360p_60min_g{gop}", "640x360", 60, (*X264, str(gop)), repeats=6),
    )
}


def make(video: Video) -> None:
    """Encode a test picture with FFmpeg, unless it is there."""
    if video.path.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    part, whole = FOLDER / "part.mp4", FOLDER / "whole.mp4"
    seconds = video.minutes * 60 // video.repeats
    source = ["-f", "lavfi", "-i", f"testsrc2=size={video.size}:rate={FPS}:duration={seconds}", "-pix_fmt", "yuv420p"]
    ffmpeg = ["ffmpeg", "-v", "error", "-y"]
    subprocess.run(["nice", *ffmpeg, *source, "-threads", "2", *video.encoder, part], check=True)
    subprocess.run([*ffmpeg, "-stream_loop", str(video.repeats - 1), "-i", part, "-c", "copy", whole], check=True)
    whole.rename(video.path)
    part.unlink()


def wanted_frames(task: str, num_frames: int) -> list[int]:
    """Choose frames by number: 64 uniform ones, 16 of a window of 4 s, or one per second."""
    if task.startswith("window"):
        start = random.Random(0).randrange(num_frames - 4 * FPS)
        return [start + index * 4 * FPS // 16 for index in range(16)]
    if task.startswith("sweep"):
        return list(range(0, num_frames, FPS))
    return [num_frames * (2 * index + 1) // 128 for index in range(64)]


# --- the readers: (path, numbers of frames) -> frames (N, H, W, 3) or (N, 3, H, W) --------------------------------


def read_decord(path: str, frames: list[int]) -> Any:
    import decord

    return decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1).get_batch(frames).asnumpy()


def read_opencv(path: str, frames: list[int]) -> Any:
    """Seek where frames lie more than a second apart, else pass over them without converting."""
    import cv2

    capture: Any = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    height, width = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    out = np.empty((len(frames), height, width, 3), np.uint8)
    position = -FPS - 1
    for place, frame in enumerate(frames):
        if frame - position > FPS:
            capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
            position = frame - 1
        while position < frame:
            assert capture.grab()
            position += 1
        cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB, dst=out[place])
    return out


def read_pyav(path: str, frames: list[int]) -> Any:
    """Seek where frames lie more than a second apart, else decode on."""
    import av

    container = av.open(path)
    stream = container.streams.video[0]
    stream.thread_count = 1
    out = np.empty((len(frames), stream.height, stream.width, 3), np.uint8)
    base, begin = Fraction(stream.time_base or 1), stream.start_time or 0
    pictures, before = container.decode(stream), -FPS - 1
    for place, frame in enumerate(frames):
        tick = begin + round(frame / FPS / base)
        if frame - before > FPS:
            container.seek(tick, stream=stream, backward=True)
            pictures = container.decode(stream)
        found = next(picture for picture in pictures if picture.pts is not None and picture.pts >= tick)
        out[place] = found.reformat(format="rgb24", threads=1).to_ndarray()
        before = frame
    return out


def read_m1lite(path: str, frames: list[int]) -> Any:
    from m1lite.video.reader import open_video

    return open_video(path).frames_at([frame / FPS for frame in frames]).pixels


def read_key_frames(path: str, frames: list[int]) -> Any:
    from m1lite.video.reader import open_video

    return open_video(path).frames_at([frame / FPS for frame in frames], nearest_key=True).pixels


def read_cached(path: str, frames: list[int]) -> Callable[[], Any]:
    """Fill a cache; what is returned reads from it."""
    from m1lite.video.cache import FrameCache

    cache, seconds = FrameCache(8 * 10**9), [frame / FPS for frame in frames]
    cache.frames_at(path, seconds)
    return lambda: cache.frames_at(path, seconds).pixels


READERS: dict[str, tuple[Callable[[str, list[int]], Any], tuple[str, ...]]] = {
    "decord": (read_decord, ("decord",)),
    "PyAV": (read_pyav, ("av",)),
    "OpenCV": (read_opencv, ("cv2",)),
    "m1lite": (read_m1lite, ("m1lite.video.cache", "m1lite.video._torchcodec", "m1lite.video._pyav")),
    "key_frames": (read_key_frames, ("m1lite.video.cache", "m1lite.video._torchcodec", "m1lite.video._pyav")),
    "cached": (read_cached, ("m1lite.video.cache", "m1lite.video._torchcodec", "m1lite.video._pyav")),
}


def memory(field: str) -> int:
    """Give a number of bytes of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def work(reader: str, task: str, path: str, num_frames: int, out: str) -> dict[str, float]:
    """Measure one reader once and keep every eighth pixel of its frames."""
    function, modules = READERS[reader]
    for module in modules:
        importlib.import_module(module)
    if "m1lite.video.cache" in modules:
        import torch

        from m1lite.video.backends import find_backend

        torch.set_num_threads(1)
        find_backend()
    shift = {"before": -1, "after": 1}.get(task.partition("_")[2], 0)
    frames = [min(max(frame + shift, 0), num_frames - 1) for frame in wanted_frames(task, num_frames)]
    prepared = function(path, frames) if reader == "cached" else None
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    resident = memory("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    pixels = prepared() if prepared is not None else function(path, frames)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = {"cpu": cpu, "wall": wall, "peak_mb": (memory("VmHWM") - resident) / 1e6}
    pixels = np.asarray(pixels)
    np.save(out, (pixels.transpose(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels)[:, ::8, ::8])
    return found


def measure(reader: str, task: str, video: Video, folder: Path) -> dict[str, float]:
    """Run a reader in a process of its own."""
    out = folder / f"{reader}_{task}.npy"
    command = [sys.executable, __file__, reader, task, video.path, out]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{video.name} {task} {reader}: " + " ".join(f"{key} {value:.3g}" for key, value in found.items()), flush=True
    )
    return found


def medians(readers: tuple[str, ...], task: str, video: Video, folder: Path) -> dict[str, dict[str, float]]:
    """Measure readers in turn, until there are enough rounds or a minute of processor time is spent."""
    runs: list[dict[str, dict[str, float]]] = []
    spent = 0.0
    while not runs or (len(runs) < ROUNDS and spent < 60):
        runs.append({reader: measure(reader, task, video, folder) for reader in readers})
        spent += sum(found["cpu"] for found in runs[-1].values())
    return {
        reader: {key: statistics.median(run[reader][key] for run in runs) for key in runs[0][reader]} | {"n": len(runs)}
        for reader in readers
    }


def exact_share(folder: Path, task: str, reader: str, reference: str) -> float:
    """Give the share of frames that are nearer to the reference's frame than to the frames before and after it."""
    own, same, before, after = (
        np.load(folder / f"{name}.npy").astype(np.float32)
        for name in (f"{reader}_{task}", *(f"{reference}_{task}{part}" for part in ("", "_before", "_after")))
    )
    errors = [np.abs(own - other).mean(axis=(1, 2, 3)) for other in (same, before, after)]
    return float(((errors[0] < errors[1]) & (errors[0] < errors[2])).mean())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", list(VIDEOS))
@pytest.mark.timeout(0)
def test_decoding(benchmark, figure, tmp_path, name, task):
    """All readers on one task: time and peak memory against the best peer, and whether the frames are right."""
    video = VIDEOS[name]
    make(video)
    readers = (
        "m1lite",
        *PEERS,
        *(() if task == "sweep" else ("cached",)),
        *(("key_frames",) if task == "uniform" else ()),
    )
    found = benchmark.pedantic(lambda: medians(readers, task, video, tmp_path), rounds=1, iterations=1)
    benchmark.extra_info |= found
    fastest = min(found[peer]["cpu"] for peer in PEERS)
    leanest = min(found[peer]["peak_mb"] for peer in PEERS)
    figure(f"decode_{name}_{task}_vs_fastest_peer", fastest / found["m1lite"]["cpu"], "ratio", ">=", 1)
    figure(f"decode_{name}_{task}_memory_vs_leanest_peer", found["m1lite"]["peak_mb"] / leanest, "ratio", "<=", 1)
    if "cached" in found:
        figure(f"decode_{name}_{task}_cache_hit_vs_fastest_peer", fastest / found["cached"]["cpu"], "ratio", ">=", 20)
    if "key_frames" in found:
        figure(
            f"decode_{name}_{task}_key_frames_vs_fastest_peer", fastest / found["key_frames"]["cpu"], "ratio", ">=", 5
        )
    if task != "sweep":  # its neighbours would take as long again
        for part in ("before", "after"):
            measure("PyAV", f"{task}_{part}", video, tmp_path)
        for reader in ("m1lite", *PEERS):
            share = exact_share(tmp_path, task, reader, "PyAV")
            figure(f"decode_{name}_{task}_exact_{reader}", share, "share", ">=", 1 if reader == "m1lite" else 0)


if __name__ == "__main__":
    given_reader, given_task, given_path, given_out = sys.argv[1:]
    count = VIDEOS[Path(given_path).stem].num_frames
    print(json.dumps(work(given_reader, given_task, given_path, count, given_out)))
