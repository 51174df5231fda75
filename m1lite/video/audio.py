"""Read the sound of a video, in one channel at a chosen rate, on the clock of its pictures. Only PyAV is needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import torch
from av.error import FFmpegError

from m1lite.video.base import REMEDY, VideoError, unreadable
from m1lite.video.policy import VideoPolicy
from m1lite.video.sources import find_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from numpy.typing import NDArray
    from torch import Tensor

_EARLIER_SECONDS = 0.5
"""Codecs need some packets before the one that is asked for."""
_GAP_SECONDS = 0.02
"""A stretch without sound; shorter ones are the rounding of clocks, such as Matroska's of a millisecond."""


class NoSoundError(VideoError):
    """A video without a sound stream."""


def read_audio(
    uri: str | Path, start: float, end: float, *, sample_rate: int = 16_000, policy: VideoPolicy | None = None
) -> Tensor:
    """Decode the sound of a window.

    Args:
        uri: as for ``open_video``.
        start: seconds since the first picture, at least 0; since the first sound where there is no picture.
        end: seconds, above ``start``.
        sample_rate: samples per second, at least 1.
        policy: what may be opened; ``None`` is ``VideoPolicy()``.

    Returns:
        float32 ``(round((end - start) * sample_rate),)`` from -1 to 1, the mean of its channels; 0 where there is
            no sound.

    Raises:
        ValueError: if the window or the rate is out of range.
        NoSoundError: if the file has no sound stream.
        VideoError: if the file is missing, refused, or cannot be decoded.
    """
    if not 0 <= start < end < math.inf or sample_rate < 1:
        raise ValueError(
            "A window of sound needs 0 <= start < end (seconds) and a `sample_rate` of at least 1, got "
            f"start={start}, end={end} and sample_rate={sample_rate}."
        )
    uri, policy = str(uri), policy or VideoPolicy()
    count = round((end - start) * sample_rate)
    policy.check_decoded(uri, 4 * count)
    source = find_source(uri, policy)
    samples = np.zeros(count, dtype=np.float32)
    try:
        with cast("InputContainer", av.open(source.media())) as container:
            if not container.streams.audio:
                raise NoSoundError(f"The video {uri!r} has no sound.")
            for first, piece in _pieces(container, start, end, sample_rate):
                low, high = max(first, 0), min(first + len(piece), count)
                if low < high:
                    samples[low:high] = piece[low - first : high - first]
    except (FFmpegError, ValueError) as error:
        found = f"its sound from second {start:.2f} to {end:.2f} cannot be decoded ({error})"
        raise unreadable(uri, found, REMEDY) from error
    return torch.from_numpy(samples)


def _pieces(
    container: InputContainer, start: float, end: float, rate: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Decode what covers the window; every piece with the place of its first sample, counted from the window's."""
    stream = container.streams.audio[0]
    begin = _begin(container, stream)
    early = begin + start - _EARLIER_SECONDS
    if start > _EARLIER_SECONDS and stream.time_base:
        container.seek(int(early / stream.time_base), stream=stream, backward=True)
    resampler = av.AudioResampler(format="fltp", rate=rate)
    position: int | None = None
    for frame in container.decode(stream):
        if frame.time is not None and frame.time - begin > end + _EARLIER_SECONDS:
            break
        for piece in resampler.resample(frame):
            told = position if piece.time is None else round((piece.time - begin - start) * rate)
            if position is None or told is None or abs(told - position) > _GAP_SECONDS * rate:
                position = told or 0
            yield position, _mixed(piece)
            position += piece.samples
    for piece in resampler.resample(None):
        yield position or 0, _mixed(piece)


def _mixed(piece: av.AudioFrame) -> NDArray[np.float32]:
    """Give the mean of all channels; FFmpeg's own mix of two in floats is louder than either."""
    mean: NDArray[np.float32] = piece.to_ndarray().mean(0, dtype=np.float32)
    return mean


def _begin(container: InputContainer, stream: AudioStream) -> float:
    """Tell when, on the container's clock, the first picture is shown."""
    first = container.streams.video[0] if container.streams.video else stream
    return float(first.start_time * first.time_base) if first.start_time is not None and first.time_base else 0.0
