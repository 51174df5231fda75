"""Read frames of a video at given seconds. Keeping them is in video/cache.py, writing in video/writer.py.

Times are seconds since the start of the first frame. Which seconds to look at is decided elsewhere (video/sampling.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from m1lite.video.backends import BackendName, choose_backend
from m1lite.video.base import Decoder, Size, VideoError, VideoMetadata, resized
from m1lite.video.images import ImageDecoder, find_images, names_images
from m1lite.video.policy import VideoPolicy
from m1lite.video.sampling import rate_times
from m1lite.video.sources import find_source

__all__ = ["Frames", "VideoError", "VideoMetadata", "VideoPolicy", "VideoReader", "open_video", "resized"]

# Half a microsecond is shorter than any frame and longer than the rounding of `index / fps`; without it the frame that
# starts at second 0.6 is missed when the caller's arithmetic gives 0.5999999999999999.
_ROUNDING_SECONDS = 5e-7
_MAX_FPS = 1000


@dataclass(kw_only=True, slots=True, frozen=True)
class Frames:
    """Decoded frames."""

    pixels: Tensor
    """uint8 ``(N, 3, H, W)``, RGB."""
    timestamps: list[float]
    """Second at which each frame starts."""

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.timestamps):
            raise ValueError(f"`Frames` got {len(self.pixels)} frames but {len(self.timestamps)} timestamps.")

    def __len__(self) -> int:
        return len(self.timestamps)

    def __repr__(self) -> str:
        span = f"{self.timestamps[0]:g}..{self.timestamps[-1]:g}" if self.timestamps else "none"
        return f"Frames(pixels={tuple(self.pixels.shape)}, timestamps={span})"


def open_video(
    uri: str | Path,
    *,
    backend: BackendName | None = None,
    exact: bool = True,
    device: str = "cpu",
    image_fps: float | None = None,
    policy: VideoPolicy | None = None,
) -> VideoReader:
    """Open a video file, or a sequence of images.

    Args:
        uri: a path, ``file://``, ``https://`` or any URI that fsspec knows; a folder or a pattern such as
            ``frames/*.jpg`` with ``image_fps``.
        backend: ``None`` takes the fastest one that works here.
        exact: know when every frame is shown, from the file's table or by reading through the file once. ``False``
            believes the header: a remote or very long file without such a table opens at once, but where its frame
            rate varies, another frame may come than the one shown.
        device: where to decode and to leave the frames; ``"cuda"`` needs torchcodec with GPU decoding.
        image_fps: images per second of a folder or a pattern; above 0.
        policy: what may be opened; ``None`` is ``VideoPolicy()``.

    Raises:
        ValueError: if the backend, the device or ``image_fps`` is out of range.
        VideoError: if the video is missing, empty, truncated, without a picture, not a video, or refused.
    """
    uri, policy = str(uri), policy or VideoPolicy()
    if image_fps is not None and names_images(uri):
        files = find_images(uri, image_fps, policy)
        return VideoReader(uri, lambda: ImageDecoder(files, image_fps), policy=policy)
    source = find_source(uri, policy)
    chosen = choose_backend(backend, source.track, device)
    return VideoReader(
        uri, partial(chosen.open, source.media, uri, track=source.track, exact=exact, device=device), policy=policy
    )


class VideoReader:
    """One open video; make it with ``open_video``. Not thread-safe. After a fork, the child opens the file anew.

    Args:
        uri: named in errors.
        opener: opens a decoder.
        policy: limits on what is found and asked.
    """

    def __init__(self, uri: str, opener: Callable[[], Decoder], *, policy: VideoPolicy) -> None:
        self.uri = uri
        self._opener = opener
        self._policy = policy
        self._pid = os.getpid()
        self._own_decoder = opener()
        policy.check_metadata(uri, self._own_decoder.metadata)

    @property
    def metadata(self) -> VideoMetadata:
        """Duration, frame rate, number of frames and size."""
        return self._own_decoder.metadata

    def frames_at(self, seconds: Sequence[float], *, size: Size | None = None, nearest_key: bool = False) -> Frames:
        """Decode the frame shown at each second.

        Args:
            seconds: in ``[0, duration]`` (the last frame is also shown at the very end), in any order.
            size: height and width to resize to; ``None`` keeps the video's own.
            nearest_key: give the key frame whose start is nearest to each second instead, which is many times faster;
                the timestamps say which one it was. Neighbouring seconds may share one.

        Returns:
            One frame per second asked, in the order asked; it starts at or before the second, except for
            ``nearest_key``.

        Raises:
            ValueError: if a second or the size is out of range.
            VideoError: if a frame cannot be decoded, or too much is asked at once.
        """
        if size is not None and min(size) < 1:
            raise ValueError(f"`size` must be a height and a width of at least 1, got {size}.")
        self._check_seconds(seconds)
        height, width = size or (self.metadata.height, self.metadata.width)
        self._policy.check_decoded(self.uri, len(seconds) * 3 * height * width)
        if not seconds:
            return Frames(pixels=torch.empty(0, 3, height, width, dtype=torch.uint8), timestamps=[])
        decoder = self._decoder
        if nearest_key:
            asked = _nearest(decoder.key_starts(), seconds)
            decode = decoder.key_frames_at
        else:
            last = self.metadata.duration - 2 * _ROUNDING_SECONDS
            asked = [min(second, last) + _ROUNDING_SECONDS for second in seconds]
            decode = decoder.frames_at
        wanted = sorted(set(asked))
        pixels, starts = decode(wanted, size)
        if asked != wanted:
            place = {second: index for index, second in enumerate(wanted)}
            order = [place[second] for second in asked]
            pixels, starts = pixels[order], [starts[index] for index in order]
        return Frames(pixels=pixels, timestamps=[max(start, 0.0) for start in starts])

    def frames_between(self, start: float, end: float, *, fps: float | None = None, size: Size | None = None) -> Frames:
        """Decode the frames of a window.

        Args:
            start: seconds, at least 0.
            end: seconds, above ``start``; not reached.
            fps: frames per second, the first one at ``start``; ``None`` gives every frame that starts in the window.
            size: as in ``frames_at``.

        Raises:
            ValueError: if the window or the size is out of range.
            VideoError: if a frame cannot be decoded, or too much is asked at once.
        """
        if not 0 <= start < end:
            raise ValueError(f"A window needs 0 <= start < end (seconds), got start={start}, end={end}.")
        self._check_seconds([start, end])
        if fps is not None:
            if fps > _MAX_FPS:
                raise ValueError(f"`fps` must be at most {_MAX_FPS}, got {fps}.")
            return self.frames_at(rate_times(start, end, fps), size=size)
        starts = self._decoder.frame_starts()
        first, beyond = np.searchsorted(starts, [start - _ROUNDING_SECONDS, end - _ROUNDING_SECONDS])
        return self.frames_at(starts[first:beyond].tolist(), size=size)

    def key_seconds(self) -> list[float]:
        """Give the second at which each key frame starts, ascending.

        Raises:
            VideoError: if the file cannot be read through.
        """
        return [float(second) for second in self._decoder.key_starts()]

    @property
    def _decoder(self) -> Decoder:
        # A decoder that was opened before a fork shares its file position with the parent.
        if self._pid != os.getpid():
            self._own_decoder, self._pid = self._opener(), os.getpid()
        return self._own_decoder

    def _check_seconds(self, seconds: Sequence[float]) -> None:
        duration = self.metadata.duration
        for second in seconds:
            if not 0 <= second <= duration + _ROUNDING_SECONDS:
                raise ValueError(
                    f"`seconds` holds {second}, but the video {self.uri!r} lasts from 0 to {duration:g}; "
                    "clip the times to the video first."
                )


def _nearest(keys: np.ndarray, seconds: Sequence[float]) -> list[float]:
    """Give, for each second, the nearest of ascending ``keys``, the earlier one of two as near."""
    asked = np.asarray(seconds, dtype=np.float64)
    after = np.searchsorted(keys, asked).clip(max=len(keys) - 1)
    before = (after - 1).clip(min=0)
    nearest: list[float] = np.where(asked - keys[before] <= keys[after] - asked, keys[before], keys[after]).tolist()
    return nearest
