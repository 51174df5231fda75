"""What the two video backends share: the records, the error and the contract. No decoding here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class VideoError(RuntimeError):
    """A video file that cannot be read or written; the text names the file, what was found and the remedy."""


@dataclass(kw_only=True, slots=True, frozen=True)
class VideoMetadata:
    """What a video file holds, counted from its packets and not taken from its header."""

    duration: float
    """Seconds from the start of the first frame to the end of the last."""
    fps: float
    """Frames per second, on average."""
    num_frames: int
    height: int
    """Pixels, after rotation."""
    width: int
    """Pixels, after rotation."""


class Decoder(Protocol):
    """One open video file. Time 0 is the start of the first frame. Not thread-safe."""

    metadata: VideoMetadata

    def frames_at(self, seconds: list[float]) -> tuple[Tensor, list[float]]:
        """Decode the frame shown at each second.

        Args:
            seconds: ascending, in ``[0, duration)``.

        Returns:
            uint8 ``(N, 3, H, W)`` and the second at which each of these frames starts.

        Raises:
            VideoError: if a frame cannot be decoded.
        """
        ...


@dataclass(kw_only=True, slots=True, frozen=True)
class Backend:
    """A way to read and write video files."""

    name: str
    open: Callable[[str], Decoder]
    """From a path or URI; raises ``VideoError``."""
    encode: Callable[..., None]
    """``encode(path, frames, fps=, crf=, pixel_format=)``: H.264 by libx264; raises ``VideoError``."""


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
