"""The torchcodec backend: needs FFmpeg's shared libraries on the machine. Nothing else imports torchcodec."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torchcodec.decoders import AudioDecoder, ColorConverter, Demuxer, VideoDecoder
from torchcodec.encoders import VideoEncoder

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
    from numpy.typing import NDArray
    from torch import Tensor

    from m1lite.video._mp4 import SteadyTrack


_FRAMES_AT_ONCE = 8
"""How many frames are held at full size while they are resized."""


class TorchcodecDecoder:
    """Reads one file with ``torchcodec.decoders``.

    Args:
        media: opened by FFmpeg.
        uri: named in errors.
        track: the file's table of frames; spares reading through the file.
        exact: without a table, read through the file once instead of believing its header.
        device: where frames are decoded and stay, ``"cpu"`` or ``"cuda"``.
    """

    def __init__(
        self, media: Media, uri: str, *, track: SteadyTrack | None = None, exact: bool = True, device: str = "cpu"
    ) -> None:
        self._media, self._uri, self._track, self._device = media, uri, track, device
        self._begin = 0.0
        self._keys: _KeyFrames | None = None
        self._open("approximate" if track is not None or not exact else "exact")

    def frames_at(self, seconds: list[float], size: Size | None = None) -> tuple[Tensor, list[float]]:
        """Decode the frame shown at each second; see ``Decoder``."""
        if size is None:
            return self._decode(seconds)
        pixels = _empty(len(seconds), size, self._device)
        starts: list[float] = []
        for first in range(0, len(seconds), _FRAMES_AT_ONCE):
            batch, found = self._decode(seconds[first : first + _FRAMES_AT_ONCE])
            pixels[first : first + len(found)] = resized(batch, size)
            starts += found
        return pixels, starts

    def frame_starts(self) -> NDArray[np.float64]:
        """Give the second at which each frame starts; see ``Decoder``."""
        if self._track is not None:
            return self._track.seconds(np.arange(self._track.num_frames))
        return self._key_frames().frame_starts()

    def key_starts(self) -> NDArray[np.float64]:
        """Give the second at which each key frame starts; see ``Decoder``."""
        if self._track is not None:
            return self._track.seconds(self._track.key_places)
        return self._key_frames().key_starts()

    def key_frames_at(self, seconds: list[float], size: Size | None = None) -> tuple[Tensor, list[float]]:
        """Decode key frames alone; see ``Decoder``."""
        try:
            return self._key_frames().decode(seconds, size)
        except (RuntimeError, ValueError, StopIteration) as error:
            raise undecodable(self._uri, seconds, _reason(error)) from error

    def _decode(self, seconds: list[float]) -> tuple[Tensor, list[float]]:
        try:
            if self._track is not None:
                frame = self._track.frame_seconds
                places = [min(int(second / frame), self._track.num_frames - 1) for second in seconds]
                batch = self._decoder.get_frames_at(places)
                starts = batch.pts_seconds.tolist()
                if all(abs(start - place * frame) < frame / 2 for start, place in zip(starts, places, strict=True)):
                    return batch.data, starts
                # The file is not what its table says: read it through after all.
                self._track = None
                self._open("exact")
            batch = self._decoder.get_frames_played_at([self._begin + second for second in seconds])
        except (RuntimeError, IndexError) as error:
            raise undecodable(self._uri, seconds, _reason(error)) from error
        return batch.data, [pts - self._begin for pts in batch.pts_seconds.tolist()]

    def _open(self, seek_mode: Literal["exact", "approximate"]) -> None:
        try:
            source: Any = self._media()  # also a file object of fsspec, which the declared types leave out
            self._decoder = VideoDecoder(source, seek_mode=seek_mode, device=self._device)
        except (RuntimeError, ValueError) as error:
            if self._device != "cpu" and not torch.cuda.is_available():
                remedy = "Decode on the CPU: device='cpu'."
                raise unreadable(self._uri, f"no GPU for device={self._device!r} ({_reason(error)})", remedy) from error
            if _has_audio(self._media):
                raise no_video_stream(self._uri, "audio") from None
            found = f"it is not a video file or its start is damaged ({_reason(error)})"
            raise unreadable(self._uri, found) from error
        told = self._decoder.metadata
        begin, end, count = told.begin_stream_seconds, told.end_stream_seconds, told.num_frames
        if self._track is not None:
            begin, end, count = 0.0, self._track.num_frames * self._track.frame_seconds, self._track.num_frames
        if not count or begin is None or end is None or end <= begin or not told.height or not told.width:
            raise unreadable(self._uri, "its video stream has no frames")
        self._begin = begin
        self.metadata = VideoMetadata(
            duration=end - begin, fps=count / (end - begin), num_frames=count, height=told.height, width=told.width
        )

    def _key_frames(self) -> _KeyFrames:
        if self._keys is None:
            try:
                self._keys = _KeyFrames(self._media, self._device, scan=self._track is None)
            except (RuntimeError, ValueError) as error:
                raise unreadable(self._uri, f"it cannot be read through ({_reason(error)})") from error
        return self._keys


class _KeyFrames:
    """Decodes key frames one by one: ``VideoDecoder`` would decode the frames after each to give them in order."""

    def __init__(self, media: Media, device: str, *, scan: bool) -> None:
        source: Any = media()
        self._demuxer = Demuxer(source)
        stream: Any = self._demuxer.streams[0]
        self._index = stream.scan() if scan else None
        self._begin = self._index.begin_stream_seconds_from_content if self._index is not None else 0.0
        self._decoder = stream.make_decoder(device)
        self._converter = ColorConverter(device)

    def frame_starts(self) -> NDArray[np.float64]:
        assert self._index is not None
        starts: NDArray[np.float64] = (self._index.pts_seconds - self._begin).numpy()
        return starts

    def key_starts(self) -> NDArray[np.float64]:
        assert self._index is not None
        return self.frame_starts()[self._index.key_frame_indices.numpy()]

    def decode(self, seconds: list[float], size: Size | None) -> tuple[Tensor, list[float]]:
        pixels: Tensor | None = None
        starts: list[float] = []
        for place, second in enumerate(seconds):
            self._demuxer.seek(self._begin + second)
            self._decoder.reset()
            packet = next(self._demuxer)
            raw = next(iter([*self._decoder.decode(packet), *self._decoder.drain()]), None)
            if raw is None:
                raise ValueError(f"the key frame at second {second:.2f} gives no picture")
            frame = resized(self._converter.convert(raw).data[None], size)[0]
            if pixels is None:
                height, width = frame.shape[1:]
                pixels = _empty(len(seconds), (height, width), str(frame.device))
            pixels[place] = frame
            starts.append(max(raw.pts_seconds - self._begin, 0.0))
        assert pixels is not None
        return pixels, starts


def _empty(count: int, size: Size, device: str) -> Tensor:
    if device == "cpu":
        return empty_frames(count, size)
    return torch.empty((count, *size, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)


def encode(path: str, frames: Tensor, *, fps: float, crf: int, pixel_format: str) -> None:
    """Write frames as H.264; see ``Backend``."""
    try:
        VideoEncoder(frames, frame_rate=fps).to_file(path, codec="libx264", pixel_format=pixel_format, crf=crf)
    except (RuntimeError, ValueError) as error:
        raise VideoError(_reason(error)) from error


def _has_audio(media: Media) -> bool:
    try:
        source: Any = media()
        AudioDecoder(source)
    except (RuntimeError, ValueError):
        return False
    return True


def _reason(error: Exception) -> str:
    """Keep the first line, without torchcodec's own file and line number and without the name of the video."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].split(".cpp:")[-1].split(", ", 1)[-1]
    return re.sub(r"^Could not open input file: \S+ ", "", line).strip(" .")


BACKEND = Backend(name="torchcodec", open=TorchcodecDecoder, encode=encode)
