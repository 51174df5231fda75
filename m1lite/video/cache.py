"""Keep decoded frames and a few open files, bounded in bytes, for all threads. Reading is in video/reader.py."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from m1lite.video.base import Size, VideoMetadata, empty_frames
from m1lite.video.reader import Frames, VideoReader, open_video
from m1lite.video.sources import Stamp, stamp


@dataclass(slots=True)
class _OpenVideo:
    """A reader, the version of the file it reads, and the lock that keeps two threads from decoding at once."""

    reader: VideoReader
    stamp: Stamp
    lock: threading.Lock = field(default_factory=threading.Lock)


_FrameKey = tuple[str, Stamp, Size | None, bool, float]
"""URI, version of the file, size, whether the nearest key frame was asked, second asked."""


@dataclass(slots=True)
class _State:
    """What a cache holds in one process."""

    pid: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    videos: OrderedDict[str, _OpenVideo] = field(default_factory=OrderedDict)
    frames: OrderedDict[_FrameKey, tuple[Tensor, float]] = field(default_factory=OrderedDict)
    num_bytes: int = 0
    hits: int = 0
    misses: int = 0
    decode_seconds: float = 0.0


class FrameCache:
    """Keeps decoded frames and a few open files, least recently used out first. Safe for threads and forks.

    A child process starts with an empty cache: a decoder that was opened before a fork shares its file position with
    the parent, and a lock may have been held by a thread that the child does not have. A local file that changes is
    opened anew, and its old frames are not given any more; a remote file is taken not to change.

    Args:
        max_bytes: upper limit of the kept pixels, in bytes; a frame larger than this is decoded but not kept.
        max_open: how many files stay open.
        opener: opens a video; a ``partial`` of ``open_video`` sets its policy or its backend.

    Raises:
        ValueError: if a limit is out of range.
    """

    def __init__(
        self, max_bytes: int, *, max_open: int = 16, opener: Callable[[str], VideoReader] = open_video
    ) -> None:
        if max_bytes < 0:
            raise ValueError(f"`max_bytes` must be at least 0, got {max_bytes}.")
        if max_open < 1:
            raise ValueError(f"`max_open` must be at least 1, got {max_open}.")
        self.max_bytes = max_bytes
        self.max_open = max_open
        self._opener = opener
        self._own = _State()

    def __repr__(self) -> str:
        return (
            f"FrameCache(bytes={self.num_bytes}/{self.max_bytes}, frames={len(self._state.frames)}, "
            f"hits={self.hits}, misses={self.misses})"
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of pixels kept now."""
        return self._state.num_bytes

    @property
    def hits(self) -> int:
        """Frames that were served without decoding."""
        return self._state.hits

    @property
    def misses(self) -> int:
        """Frames that had to be decoded."""
        return self._state.misses

    @property
    def decode_seconds(self) -> float:
        """Time that threads spent decoding, added up."""
        return self._state.decode_seconds

    def metadata(self, uri: str | Path) -> VideoMetadata:
        """Tell what a video holds; raises ``VideoError`` as ``open_video`` does."""
        return self._open(self._state, str(uri), stamp(str(uri))).reader.metadata

    def frames_at(
        self, uri: str | Path, seconds: Sequence[float], size: Size | None = None, *, nearest_key: bool = False
    ) -> Frames:
        """Give the frame shown at each second, as ``VideoReader.frames_at`` does, decoding only what is not kept."""
        state, uri = self._state, str(uri)
        version = stamp(uri)
        size = None if size is None else (int(size[0]), int(size[1]))  # a list from YAML or JSON does not hash
        keys: list[_FrameKey] = [(uri, version, size, nearest_key, float(second)) for second in seconds]
        known = self._look_up(state, keys)
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if missing or not keys:
            video = self._open(state, uri, version)
            with video.lock:
                started = time.perf_counter()
                wanted = [second for *_, second in missing]
                decoded = video.reader.frames_at(wanted, size=size, nearest_key=nearest_key)
                spent = time.perf_counter() - started
            with state.lock:
                state.decode_seconds += spent
            if not keys:
                return decoded
            fresh = {
                key: (pixels, start)
                for key, pixels, start in zip(missing, decoded.pixels, decoded.timestamps, strict=True)
            }
            self._keep(state, fresh)
            if len(missing) == len(keys):
                return decoded
            known |= fresh
        return Frames(pixels=_stacked([known[key][0] for key in keys]), timestamps=[known[key][1] for key in keys])

    @property
    def _state(self) -> _State:
        # Two threads of a new child may both make a state; the loser's frames are then merely decoded again.
        if self._own.pid != os.getpid():
            self._own = _State()
        return self._own

    def _open(self, state: _State, uri: str, version: Stamp) -> _OpenVideo:
        with state.lock:
            video = state.videos.get(uri)
        if video is None or video.stamp != version:
            # Outside of the lock, for a slow disk or network; two threads may open the same file, the last one stays.
            video = _OpenVideo(self._opener(uri), version)
        with state.lock:
            state.videos[uri] = video
            state.videos.move_to_end(uri)
            while len(state.videos) > self.max_open:
                state.videos.popitem(last=False)  # a thread that still decodes with it keeps it alive
        return video

    def _look_up(self, state: _State, keys: Sequence[_FrameKey]) -> dict[_FrameKey, tuple[Tensor, float]]:
        with state.lock:
            known = {key: state.frames[key] for key in keys if key in state.frames}
            for key in known:
                state.frames.move_to_end(key)
            misses = len(set(keys) - known.keys())
            state.misses += misses
            state.hits += len(keys) - misses
            return known

    def _keep(self, state: _State, fresh: dict[_FrameKey, tuple[Tensor, float]]) -> None:
        with state.lock:
            for key, (pixels, start) in fresh.items():
                if pixels.nbytes > self.max_bytes or key in state.frames:
                    continue
                while state.num_bytes + pixels.nbytes > self.max_bytes:
                    _, (oldest, _) = state.frames.popitem(last=False)
                    state.num_bytes -= oldest.nbytes
                # A copy, so that keeping one frame does not keep the memory of the whole batch.
                state.frames[key] = (pixels.clone(), start)
                state.num_bytes += pixels.nbytes


def _stacked(frames: list[Tensor]) -> Tensor:
    """Stack ``(3, H, W)`` frames as they lie in memory, pixel after pixel; planes would have to be gathered."""
    height, width = frames[0].shape[1:]
    pixels = empty_frames(len(frames), (height, width)) if frames[0].device.type == "cpu" else None
    out = None if pixels is None else pixels.permute(0, 2, 3, 1)
    return torch.stack([frame.permute(1, 2, 0) for frame in frames], out=out).permute(0, 3, 1, 2)
