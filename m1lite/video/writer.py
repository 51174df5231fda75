"""Write frames to a video file, whole or not at all. Reading is in video/reader.py."""

from __future__ import annotations

import math
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from m1lite.video.backends import BackendName, find_backend
from m1lite.video.base import VideoError

if TYPE_CHECKING:
    from torch import Tensor


def write_video(
    path: str | Path,
    frames: Tensor,
    *,
    fps: float,
    crf: int = 18,
    pixel_format: str = "yuv444p",
    backend: BackendName | None = None,
) -> None:
    """Encode frames with libx264, under a temporary name in the same folder that is renamed at the end.

    Args:
        path: the file to write; its ending names the container (``.mp4``, ``.mkv``, ``.mov``).
        frames: uint8 ``(N, 3, H, W)`` on the CPU, RGB, at least one frame.
        fps: frames per second, above 0.
        crf: quality from 0 (lossless) to 51 (worst).
        pixel_format: ``yuv444p`` keeps the colour of every pixel; ``yuv420p`` plays everywhere, but halves the
            resolution of colour and needs even sizes.
        backend: ``None`` takes the one that works here.

    Raises:
        ValueError: if an argument is out of range.
        VideoError: if the file cannot be written.
    """
    path = Path(path)
    _check(frames, fps, crf)
    if not path.parent.is_dir():
        raise VideoError(f"Cannot write the video {str(path)!r}: its folder does not exist. Create it first.")
    # The ending stays last, because the encoder reads the container from it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        find_backend(backend).encode(str(temporary), frames.contiguous(), fps=fps, crf=crf, pixel_format=pixel_format)
        os.replace(temporary, path)
    except VideoError as error:
        height, width = frames.shape[2:]
        what = f"{len(frames)} frames of {height}x{width}, {pixel_format}"
        raise VideoError(
            f"Cannot write the video {str(path)!r} ({what}): {error}. "
            "Check the ending (.mp4, .mkv, .mov), the pixel format and the free space."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _check(frames: Tensor, fps: float, crf: int) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8 or 0 in frames.shape:
        raise ValueError(
            f"`frames` must be uint8 (N, 3, H, W) with at least one frame, got {frames.dtype} {tuple(frames.shape)}."
        )
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"`fps` must be above 0, got {fps}.")
    if not 0 <= crf <= 51:
        raise ValueError(f"`crf` must be from 0 (lossless) to 51 (worst), got {crf}.")
