"""From a media reference to pixels: decoded where they are needed, through the bounded cache, cut and resized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from m1lite.video.reader import resized

if TYPE_CHECKING:
    from torch import Tensor

    from m1lite.records import MediaRef
    from m1lite.video.cache import FrameCache


def media_pixels(frames: FrameCache, media: MediaRef) -> Tensor:
    """Decode what a reference shows.

    Args:
        frames: decodes and keeps frames.
        media: T times, size H x W, perhaps a part of each frame.

    Returns:
        uint8 ``(T, 3, H, W)``, RGB, resized bilinearly with antialiasing.

    Raises:
        VideoError: if the video cannot be read.
        ValueError: if a time is outside of the video, or the part has no whole pixel.
    """
    if media.box is None:
        return frames.frames_at(media.uri, media.timestamps, size=media.size).pixels
    whole = frames.frames_at(media.uri, media.timestamps).pixels
    height, width = whole.shape[2:]
    left, top, right, bottom = pixel_box(media.box, height, width)
    return resized(whole[:, :, top:bottom, left:right], media.size)


def pixel_box(box: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """Round a part of a frame outwards to whole pixels, left, top, right, bottom.

    Example:
        >>> pixel_box((0.25, 0.0, 0.76, 0.5), height=10, width=100)
        (25, 0, 76, 5)
    """
    edges = torch.tensor(box, dtype=torch.float64) * torch.tensor([width, height, width, height])
    # A share such as 0.76 of 100 is 76.00000000000001 in binary; that is no pixel more.
    low, high = (edges + 1e-9).floor().long().tolist(), (edges - 1e-9).ceil().long().tolist()
    return low[0], low[1], high[2], high[3]
