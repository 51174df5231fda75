"""The torchcodec backend: needs FFmpeg's shared libraries on the machine. Nothing else imports torchcodec."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torchcodec.decoders import AudioDecoder, VideoDecoder
from torchcodec.encoders import VideoEncoder

from m1lite.video.base import Backend, VideoError, VideoMetadata, no_video_stream, undecodable, unreadable

if TYPE_CHECKING:
    from torch import Tensor


class TorchcodecDecoder:
    """Reads one file with ``torchcodec.decoders.VideoDecoder``."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        try:
            self._decoder = VideoDecoder(uri, seek_mode="exact")
        except (RuntimeError, ValueError) as error:
            if _has_audio(uri):
                raise no_video_stream(uri, "audio") from None
            raise unreadable(uri, f"it is not a video file or its start is damaged ({_reason(error)})") from error
        found = self._decoder.metadata
        begin, end, count = found.begin_stream_seconds, found.end_stream_seconds, found.num_frames
        if not count or begin is None or end is None or end <= begin or not found.height or not found.width:
            raise unreadable(uri, "its video stream has no frames")
        self._begin = begin
        self.metadata = VideoMetadata(
            duration=end - begin, fps=count / (end - begin), num_frames=count, height=found.height, width=found.width
        )

    def frames_at(self, seconds: list[float]) -> tuple[Tensor, list[float]]:
        """Decode the frame shown at each second; see ``Decoder``."""
        try:
            batch = self._decoder.get_frames_played_at([self._begin + second for second in seconds])
        except (RuntimeError, IndexError) as error:
            raise undecodable(self._uri, seconds, _reason(error)) from error
        return batch.data, [pts - self._begin for pts in batch.pts_seconds.tolist()]


def encode(path: str, frames: Tensor, *, fps: float, crf: int, pixel_format: str) -> None:
    """Write frames as H.264; see ``Backend``."""
    try:
        VideoEncoder(frames, frame_rate=fps).to_file(path, codec="libx264", pixel_format=pixel_format, crf=crf)
    except (RuntimeError, ValueError) as error:
        raise VideoError(_reason(error)) from error


def _has_audio(uri: str) -> bool:
    try:
        AudioDecoder(uri)
    except (RuntimeError, ValueError):
        return False
    return True


def _reason(error: Exception) -> str:
    """Keep the first line, without torchcodec's own file and line number and without the name of the video."""
    line = str(error).strip().splitlines()[0].split(".cpp:")[-1].split(", ", 1)[-1]
    return re.sub(r"^Could not open input file: \S+ ", "", line).strip(" .")


BACKEND = Backend(name="torchcodec", open=TorchcodecDecoder, encode=encode)
