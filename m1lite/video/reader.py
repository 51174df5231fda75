"""Read frames of a video file at given seconds. Keeping them is in video/cache.py, writing in video/writer.py.

Times are seconds since the start of the first frame. Which seconds to look at is decided elsewhere (video/sampling.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from m1lite.video._mp4 import cut_off
from m1lite.video.backends import BackendName, find_backend
from m1lite.video.base import Decoder, VideoError, VideoMetadata, unreadable

__all__ = ["Frames", "VideoError", "VideoMetadata", "VideoReader", "open_video"]

# Half a microsecond is shorter than any frame and longer than the rounding of `index / fps`; without it the frame that
# starts at second 0.6 is missed when the caller's arithmetic gives 0.5999999999999999.
_ROUNDING_SECONDS = 5e-7


@dataclass(kw_only=True, slots=True, frozen=True)
class Frames:
    """Decoded frames."""

    pixels: Tensor
    """uint8 ``(N, 3, H, W)``, RGB."""
    timestamps: list[float]
    """Second at which each frame starts, at or before the second that was asked."""

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.timestamps):
            raise ValueError(f"`Frames` got {len(self.pixels)} frames but {len(self.timestamps)} timestamps.")

    def __len__(self) -> int:
        return len(self.timestamps)

    def __repr__(self) -> str:
        span = f"{self.timestamps[0]:g}..{self.timestamps[-1]:g}" if self.timestamps else "none"
        return f"Frames(pixels={tuple(self.pixels.shape)}, timestamps={span})"


def open_video(uri: str | Path, *, backend: BackendName | None = None) -> VideoReader:
    """Open a video file.

    Args:
        uri: a path, or a URL that FFmpeg can open.
        backend: ``None`` takes the one that works here.

    Raises:
        VideoError: if the file is missing, empty, truncated, without a picture, or not a video.
    """
    uri = str(uri)
    if "://" not in uri:
        _check_file(uri)
    return VideoReader(uri, find_backend(backend).open(uri))


class VideoReader:
    """One open video file; make it with ``open_video``. Not thread-safe, and not to be used after a fork."""

    def __init__(self, uri: str, decoder: Decoder) -> None:
        self.uri = uri
        self._decoder = decoder

    @property
    def metadata(self) -> VideoMetadata:
        """Duration, frame rate, number of frames and size."""
        return self._decoder.metadata

    def frames_at(self, seconds: Sequence[float], *, size: tuple[int, int] | None = None) -> Frames:
        """Decode the frame shown at each second.

        Args:
            seconds: in ``[0, duration]`` (the last frame is also shown at the very end), in any order.
            size: height and width to resize to; ``None`` keeps the video's own.

        Returns:
            One frame per second asked, in the order asked.

        Raises:
            ValueError: if a second or the size is out of range.
            VideoError: if a frame cannot be decoded.
        """
        if size is not None and min(size) < 1:
            raise ValueError(f"`size` must be a height and a width of at least 1, got {size}.")
        self._check_seconds(seconds)
        if not seconds:
            height, width = size or (self.metadata.height, self.metadata.width)
            return Frames(pixels=torch.empty(0, 3, height, width, dtype=torch.uint8), timestamps=[])
        last = self.metadata.duration - 2 * _ROUNDING_SECONDS
        wanted = sorted({min(second, last) + _ROUNDING_SECONDS for second in seconds})
        pixels, starts = self._decoder.frames_at(wanted)
        place = {second: index for index, second in enumerate(wanted)}
        order = [place[min(second, last) + _ROUNDING_SECONDS] for second in seconds]
        return Frames(pixels=resized(pixels, size)[order], timestamps=[max(starts[index], 0.0) for index in order])

    def _check_seconds(self, seconds: Sequence[float]) -> None:
        duration = self.metadata.duration
        for second in seconds:
            if not 0 <= second <= duration + _ROUNDING_SECONDS:
                raise ValueError(
                    f"`seconds` holds {second}, but the video {self.uri!r} lasts from 0 to {duration:g}; "
                    "clip the times to the video first."
                )


def resized(pixels: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Resize uint8 ``(N, 3, H, W)`` to ``(N, 3, *size)``, bilinear with antialiasing."""
    if size is None or tuple(pixels.shape[2:]) == tuple(size):
        return pixels
    resized = interpolate(pixels.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _check_file(uri: str) -> None:
    path = Path(uri)
    if not path.exists():
        raise unreadable(uri, "the file does not exist", "Check the path, or fetch the data first.")
    if not path.is_file():
        raise unreadable(uri, "it is a folder, not a file", "Give the path of one video file.")
    if path.stat().st_size == 0:
        raise unreadable(uri, "the file is empty (0 bytes)")
    problem = cut_off(path)
    if problem is not None:
        raise unreadable(uri, f"the file is truncated ({problem})")
