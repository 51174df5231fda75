"""The PyAV backend: its wheel carries FFmpeg, so it needs no libraries of the machine. Nothing else imports av."""

from __future__ import annotations

import math
from bisect import bisect_right
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import torch
from av.error import FFmpegError

from m1lite.video.base import Backend, VideoError, VideoMetadata, no_video_stream, undecodable, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from numpy.typing import NDArray
    from torch import Tensor


class PyavDecoder:
    """Reads one file: counts its packets when it opens, then seeks and decodes only what is asked."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        try:
            self._container: InputContainer = av.open(uri)
        except (FFmpegError, ValueError) as error:
            raise unreadable(uri, f"it is not a video file or its start is damaged ({_reason(error)})") from error
        if not self._container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            raise no_video_stream(uri, kinds)
        self._stream = self._container.streams.video[0]
        self._stream.thread_count = 1  # as in torchcodec: callers run several readers, not several threads in one
        self._base = Fraction(self._stream.time_base or 1)
        self._keys: list[tuple[int, float]] = []  # (showing time, decoding time) in ticks, ascending
        count, self._first_pts, end_pts = self._scan()
        seconds = float((end_pts - self._first_pts) * self._base)
        height, width = self._shown_size()
        self.metadata = VideoMetadata(
            duration=seconds, fps=count / seconds, num_frames=count, height=height, width=width
        )

    def frames_at(self, seconds: list[float]) -> tuple[Tensor, list[float]]:
        """Decode the frame shown at each second; see ``Decoder``."""
        pixels: list[NDArray[np.uint8]] = []
        starts: list[float] = []
        try:
            for frame in self._shown_at([self._first_pts + int(second / self._base) for second in seconds]):
                pixels.append(_upright(frame))
                starts.append(float((_pts(frame) - self._first_pts) * self._base))
        except FFmpegError as error:
            raise undecodable(self._uri, seconds, _reason(error)) from error
        if len(pixels) < len(seconds):
            raise undecodable(self._uri, seconds, f"only {len(pixels)} of {len(seconds)} found")
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), starts  # (N, H, W, 3) -> NCHW

    def _scan(self) -> tuple[int, int, int]:
        """Count the frames, find the first and the last timestamp in ticks, note the key frames; decode nothing."""
        step = round(1 / ((self._stream.average_rate or 25) * self._base)) or 1  # for packets without a duration
        count, first, end = 0, None, 0
        try:
            for packet in self._container.demux(self._stream):
                pts = packet.pts if packet.pts is not None else packet.dts
                if pts is None or packet.is_discard:  # the flushing packet, or one that an edit list cuts away
                    continue
                count += 1
                if packet.is_keyframe:
                    self._keys.append((pts, pts if packet.dts is None else packet.dts))
                first = pts if first is None else min(first, pts)
                end = max(end, pts + (packet.duration or step))
        except FFmpegError as error:
            raise unreadable(self._uri, f"it is damaged after {count} frames ({_reason(error)})") from error
        if first is None or end <= first:
            raise unreadable(self._uri, "its video stream has no frames")
        if not self._keys:
            raise unreadable(self._uri, f"none of its {count} frames is a key frame; it is damaged")
        self._keys.sort()
        return count, first, end

    def _shown_at(self, ticks: list[int]) -> Iterator[av.VideoFrame]:
        """Yield, for each ascending timestamp, the last frame that starts at or before it."""
        frames = self._from(ticks[0])
        shown = next(frames, None)
        following = next(frames, None)
        for tick in ticks:
            while following is not None and _pts(following) <= tick:
                shown, following = following, next(frames, None)
            if shown is None:
                return
            yield shown

    def _from(self, tick: int) -> Iterator[av.VideoFrame]:
        """Decode forward from the last key frame at or before ``tick``."""
        index = max(bisect_right(self._keys, (tick, math.inf)) - 1, 0)
        # Containers without an index (MPEG-TS) seek by decoding time and would miss the key frame by its showing time.
        self._container.seek(int(self._keys[index][1]), stream=self._stream, backward=True)
        return self._decode()

    def _decode(self) -> Iterator[av.VideoFrame]:
        return (frame for frame in self._container.decode(self._stream) if frame.pts is not None)

    def _shown_size(self) -> tuple[int, int]:
        """Height and width as displayed; only a decoded frame tells the rotation."""
        try:
            frame = next(self._from(self._first_pts))
        except (FFmpegError, StopIteration) as error:
            raise unreadable(self._uri, f"its first frame cannot be decoded ({_reason(error)})") from error
        height, width = _upright(frame).shape[:2]
        return height, width


def _pts(frame: av.VideoFrame) -> int:
    assert frame.pts is not None  # `_decode` drops such frames
    return frame.pts


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Give a frame as RGB ``(H, W, 3)``, turned as its display matrix says (degrees counter-clockwise)."""
    rgb = frame.to_ndarray(format="rgb24")
    return np.rot90(rgb, round(frame.rotation / 90))


def encode(path: str, frames: Tensor, *, fps: float, crf: int, pixel_format: str) -> None:
    """Write frames as H.264; see ``Backend``."""
    try:
        with av.open(path, "w") as container:
            rate = Fraction(fps).limit_denominator(100_000)
            stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
            stream.height, stream.width = frames.shape[2:]
            stream.pix_fmt = pixel_format
            for pixels in frames.permute(0, 2, 3, 1).contiguous().numpy():  # (H, W, 3)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    except (FFmpegError, ValueError) as error:
        raise VideoError(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip(" .") or "nothing there"


BACKEND = Backend(name="PyAV", open=PyavDecoder, encode=encode)
