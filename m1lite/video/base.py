"""What the video backends share: the records, the error and the contract. No decoding here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate


class VideoError(RuntimeError):
    """A video that cannot be read or written, or may not be; the text names it, what was found and the remedy."""


@dataclass(kw_only=True, slots=True, frozen=True)
class VideoMetadata:
    """What a video holds, counted from its packets or its table of frames; from its header where that is asked for."""

    duration: float
    """Seconds from the start of the first frame to the end of the last."""
    fps: float
    """Frames per second, on average."""
    num_frames: int
    height: int
    """Pixels, after rotation."""
    width: int
    """Pixels, after rotation."""


Size = tuple[int, int]
"""Height and width in pixels."""


class Decoder(Protocol):
    """One open video. Time 0 is the start of the first frame. Not thread-safe."""

    metadata: VideoMetadata

    def frames_at(self, seconds: list[float], size: Size | None) -> tuple[Tensor, list[float]]:
        """Decode the frame shown at each second.

        Args:
            seconds: ascending and not empty, in ``[0, duration)``.
            size: resize each frame once it is decoded, so that few are held at full size.

        Returns:
            uint8 ``(N, 3, H, W)`` and the second at which each of these frames starts.

        Raises:
            VideoError: if a frame cannot be decoded.
        """
        ...

    def frame_starts(self) -> NDArray[np.float64]:
        """Give the second at which each frame starts, ascending.

        Raises:
            VideoError: if the file cannot be read through.
        """
        ...

    def key_starts(self) -> NDArray[np.float64]:
        """Give the second at which each key frame starts, ascending.

        Raises:
            VideoError: if the file cannot be read through.
        """
        ...

    def key_frames_at(self, seconds: list[float], size: Size | None) -> tuple[Tensor, list[float]]:
        """Decode key frames without any other frame.

        Args:
            seconds: ascending and not empty, out of ``key_starts()``.
            size: as in ``frames_at``.

        Returns:
            As ``frames_at``.

        Raises:
            VideoError: if a frame cannot be decoded.
        """
        ...


Media = Callable[[], str | BinaryIO]
"""Gives a backend what it opens: ``file:`` and an absolute path, or a file object of its own that can seek."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Backend:
    """A way to read and write video files."""

    name: str
    open: Callable[..., Decoder]
    """``open(media, uri, track=, exact=, device=)``; raises ``VideoError``."""
    encode: Callable[..., None]
    """``encode(path, frames, fps=, crf=, pixel_format=)``: H.264 by libx264; raises ``VideoError``."""


_LARGE_PAGES_BYTES = 2**26


def empty_frames(count: int, size: Size) -> Tensor:
    """Reserve uint8 ``(count, 3, *size)`` on the CPU, which lies in memory pixel after pixel."""
    shape = (count, *size, 3)
    # NumPy asks the system for large pages; the first touch of ordinary ones takes longer than copying the frames. Many
    # large pages are rarely free, though, and making them so takes longer still.
    large_pages = count * size[0] * size[1] * 3 <= _LARGE_PAGES_BYTES
    frames = torch.from_numpy(np.empty(shape, dtype=np.uint8)) if large_pages else torch.empty(shape, dtype=torch.uint8)
    return frames.permute(0, 3, 1, 2)


def resized(pixels: Tensor, size: Size | None) -> Tensor:
    """Resize uint8 ``(N, 3, H, W)`` to ``(N, 3, *size)``, bilinear with antialiasing; ``None`` keeps it."""
    if size is None or tuple(pixels.shape[2:]) == tuple(size):
        return pixels
    return interpolate(pixels, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)


REMEDY = "Download, copy or record the file again."


def unreadable(uri: str, found: str, remedy: str = REMEDY) -> VideoError:
    """Make the error for a file that cannot be read."""
    return VideoError(f"Cannot read the video {uri!r}: {found}. {remedy}")


def no_video_stream(uri: str, streams: str) -> VideoError:
    """Make the error for a file without a picture, such as a sound recording."""
    return unreadable(uri, f"it has no video stream, only {streams}", "Give a file that has a picture.")


def undecodable(uri: str, seconds: list[float], reason: object) -> VideoError:
    """Make the error for frames that the decoder gives up on."""
    where = f"the frames from second {seconds[0]:.2f} to {seconds[-1]:.2f} cannot be decoded ({reason})"
    remedy = f"{REMEDY[:-1]}, or copy it into a container that can seek: ffmpeg -i FILE -c copy NEW.mp4."
    return unreadable(uri, f"{where}; the file is truncated, damaged, or cannot seek", remedy)
