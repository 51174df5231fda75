"""The PyAV backend: its wheel carries FFmpeg, so it needs no libraries of the machine. Only audio.py imports av too."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import torch
from av.error import FFmpegError

from m1lite.video._nal import is_unreferenced, length_bytes
from m1lite.video.base import (
    Backend,
    Media,
    Size,
    VideoError,
    VideoMetadata,
    empty_frames,
    no_video_stream,
    resized,
    undecodable,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from av.packet import Packet
    from numpy.typing import NDArray
    from torch import Tensor

    from m1lite.video._mp4 import SteadyTrack


_NEAR_FRAMES = 12
"""A key frame that follows sooner is decoded to, because a seek throws away what the decoder has begun."""


class PyavDecoder:
    """Reads one file: knows when every frame is shown, then seeks and decodes only what is asked.

    Frames of H.264 and HEVC that no other frame refers to are left out unless they are asked for.

    Args:
        media: opened by FFmpeg.
        uri: named in errors.
        track: the file's table of frames; without it the packets are counted.
        exact: has no effect: counting is the only way here.
        device: ``"cpu"``.
    """

    def __init__(
        self, media: Media, uri: str, *, track: SteadyTrack | None = None, exact: bool = True, device: str = "cpu"
    ) -> None:
        if device != "cpu":
            raise ValueError(f"`device` {device!r} is out of reach: PyAV decodes on 'cpu'; use the torchcodec backend.")
        self._uri = uri
        try:
            self._container = cast("InputContainer", av.open(media()))
        except (FFmpegError, ValueError) as error:
            raise unreadable(uri, f"it is not a video file or its start is damaged ({_reason(error)})") from error
        if not self._container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            raise no_video_stream(uri, kinds)
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            raise unreadable(uri, "its codec is unknown or damaged")
        self._stream.thread_count = 1  # as in torchcodec: callers run several readers, not several threads in one
        self._context = self._stream.codec_context
        self._length_bytes = length_bytes(self._context.name, self._context.extradata or b"")
        self._base = Fraction(self._stream.time_base or 1)
        self._track = track if track is not None and self._base == Fraction(1, track.timescale) else None
        self._shown: NDArray[np.int64] | None = None
        """Without a table, the ticks at which each frame is shown, ascending."""
        if self._track is not None:
            keys = self._track.key_places * self._track.frame_ticks
            self._keys = list(zip(keys.tolist(), (keys - self._track.key_delays).tolist(), strict=True))
            self._begin, count = 0, self._track.num_frames
            end = count * self._track.frame_ticks
        else:
            self._shown, end = self._scan()
            self._begin, count = int(self._shown[0]), len(self._shown)
        seconds = float((end - self._begin) * self._base)
        height, width = self._shown_size()
        self.metadata = VideoMetadata(
            duration=seconds, fps=count / seconds, num_frames=count, height=height, width=width
        )

    def frames_at(self, seconds: list[float], size: Size | None = None) -> tuple[Tensor, list[float]]:
        """Decode the frame shown at each second; see ``Decoder``."""
        ticks = [self._begin + int(second / self._base) for second in seconds]
        if self._track is not None:
            frame, last = self._track.frame_ticks, self._track.num_frames - 1
            wanted = [min(tick // frame, last) * frame for tick in ticks]
        else:
            assert self._shown is not None
            wanted = self._shown[np.searchsorted(self._shown, ticks, side="right") - 1].tolist()
        return self._collect(self._exact(wanted), seconds, size)

    def frame_starts(self) -> NDArray[np.float64]:
        """Give the second at which each frame starts; see ``Decoder``."""
        if self._track is not None:
            return self._track.seconds(np.arange(self._track.num_frames))
        assert self._shown is not None
        starts: NDArray[np.float64] = (self._shown - self._begin) * np.float64(self._base)
        return starts

    def key_starts(self) -> NDArray[np.float64]:
        """Give the second at which each key frame starts; see ``Decoder``."""
        starts: NDArray[np.float64] = (np.array([shown for shown, _ in self._keys]) - self._begin) * float(self._base)
        return starts

    def key_frames_at(self, seconds: list[float], size: Size | None = None) -> tuple[Tensor, list[float]]:
        """Decode key frames alone; see ``Decoder``."""
        return self._collect(self._key_frames(seconds), seconds, size)

    def _collect(
        self, frames: Iterator[av.VideoFrame], seconds: list[float], size: Size | None
    ) -> tuple[Tensor, list[float]]:
        """Convert frames one by one into one tensor."""
        height, width = size or (self.metadata.height, self.metadata.width)
        pixels = empty_frames(len(seconds), (height, width))
        rows = pixels.permute(0, 2, 3, 1).numpy()  # (N, H, W, 3)
        starts: list[float] = []
        try:
            for frame in frames:
                upright = _upright(frame)
                if size is not None:
                    image = torch.from_numpy(np.ascontiguousarray(upright))[None].permute(0, 3, 1, 2)
                    upright = resized(image, size)[0].permute(1, 2, 0).numpy()
                if upright.shape != rows.shape[1:]:
                    raise undecodable(self._uri, seconds, f"one has the size {upright.shape[:2]}")
                rows[len(starts)] = upright
                starts.append(max(float((_pts(frame) - self._begin) * self._base), 0.0))
        except (FFmpegError, ValueError) as error:
            raise undecodable(self._uri, seconds, _reason(error)) from error
        if len(starts) < len(seconds):
            raise undecodable(self._uri, seconds, f"only {len(starts)} of {len(seconds)} found")
        return pixels, starts

    def _scan(self) -> tuple[NDArray[np.int64], int]:
        """Note when each frame is shown and where it ends, and the key frames; decode nothing."""
        step = round(1 / ((self._stream.average_rate or 25) * self._base)) or 1  # for packets without a duration
        shown: list[int] = []
        keys: list[tuple[int, int]] = []  # (showing time, decoding time)
        end = 0
        try:
            for packet in self._container.demux(self._stream):
                pts = packet.pts if packet.pts is not None else packet.dts
                if pts is None or packet.is_discard:  # the flushing packet, or one that an edit list cuts away
                    continue
                shown.append(pts)
                if packet.is_keyframe:
                    keys.append((pts, pts if packet.dts is None else packet.dts))
                end = max(end, pts + (packet.duration or step))
        except FFmpegError as error:
            raise unreadable(self._uri, f"it is damaged after {len(shown)} frames ({_reason(error)})") from error
        if not shown or end <= min(shown):
            raise unreadable(self._uri, "its video stream has no frames")
        if not keys:
            raise unreadable(self._uri, f"none of its {len(shown)} frames is a key frame; it is damaged")
        self._keys = sorted(keys)
        return np.unique(np.array(shown, dtype=np.int64)), end

    def _exact(self, wanted: list[int]) -> Iterator[av.VideoFrame]:
        """Yield the frames that are shown at ascending ticks, seeking where a key frame lies in between."""
        key_ticks = [shown for shown, _ in self._keys]
        spared = frozenset(wanted)
        position: tuple[int, int] | None = None  # the key frame decoded from, and the last frame found
        near = round(_NEAR_FRAMES / (self.metadata.fps * self._base))
        frames: Iterator[av.VideoFrame] = iter(())
        found: av.VideoFrame | None = None
        for tick in wanted:
            if found is not None and _pts(found) == tick:  # asked twice
                yield found
                continue
            key = max(bisect_right(key_ticks, tick) - 1, 0)
            if position is None or (key != position[0] and key_ticks[key] > position[1] + near):
                frames = self._from(key, tick, spared)
            found = next((frame for frame in frames if _pts(frame) >= tick), None)
            if found is None or _pts(found) != tick:
                return
            position = key, tick
            yield found

    def _from(self, key: int, tick: int, spared: frozenset[int]) -> Iterator[av.VideoFrame]:
        """Decode from a key frame to ``tick`` and on; of frames that can be left out, only ``spared`` ones come."""
        codec, size = self._context.name, self._length_bytes
        for packet in self._packets(key, tick):
            wanted = size is None or packet.pts is None or packet.pts in spared
            if wanted or not is_unreferenced(codec, memoryview(packet), size or 0):
                yield from self._pictures(packet)

    def _key_frames(self, seconds: list[float]) -> Iterator[av.VideoFrame]:
        """Decode only the packets of the key frames that start at ``seconds``."""
        starts = self.key_starts()
        for second in seconds:
            key = int(np.abs(starts - second).argmin())
            packet = next(
                (one for one in self._packets(key, self._keys[key][0]) if one.pts == self._keys[key][0]), None
            )
            if packet is None:
                return
            frame = next(chain(self._pictures(packet), self._pictures(None)), None)
            self._context.flush_buffers()
            if frame is None:
                return
            yield frame

    def _packets(self, key: int, tick: int) -> Iterator[Packet]:
        """Read forward from a key frame, or from some packets before it, to decode what is shown at ``tick``."""
        shown, decoded = self._keys[key]
        # The index of these holds showing times. Others (MPEG-TS) seek by decoding time and would miss the key frame.
        by_showing = self._container.format.name.startswith(("mov", "matroska"))
        # At the showing time of a key frame of HEVC, FFmpeg goes one key frame too far back.
        self._container.seek(tick if by_showing else decoded, stream=self._stream, backward=True)
        packets = self._container.demux(self._stream)
        first = next(packets, None)
        if by_showing and first is not None and first.pts is not None and first.pts > shown:
            self._container.seek(decoded, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            first = next(packets, None)
        return packets if first is None else chain((first,), packets)

    def _pictures(self, packet: Packet | None) -> Iterator[av.VideoFrame]:
        return (frame for frame in self._context.decode(packet) if frame.pts is not None)

    def _shown_size(self) -> tuple[int, int]:
        """Height and width as displayed; only a decoded frame tells the rotation."""
        try:
            frame = next(self._from(0, self._keys[0][0], frozenset()))
        except (FFmpegError, ValueError, StopIteration) as error:
            raise unreadable(self._uri, f"its first frame cannot be decoded ({_reason(error)})") from error
        height, width = frame.height, frame.width
        return (width, height) if round(frame.rotation / 90) % 2 else (height, width)


def _pts(frame: av.VideoFrame) -> int:
    assert frame.pts is not None  # `_pictures` drops such frames
    return frame.pts


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Give a frame as RGB ``(H, W, 3)``, turned as its display matrix says (degrees counter-clockwise)."""
    rgb = frame.reformat(format="rgb24", threads=1)
    # Into the frame's own memory, whose rows may be padded; the array keeps it alive.
    pixels: NDArray[np.uint8] = np.ndarray(
        (rgb.height, rgb.width, 3), np.uint8, buffer=memoryview(rgb.planes[0]), strides=(rgb.planes[0].line_size, 3, 1)
    )
    return np.rot90(pixels, round(frame.rotation / 90))


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
