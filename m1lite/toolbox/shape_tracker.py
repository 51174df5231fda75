"""An object followed from its first box by classical perception: the coloured shape that fills the box best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m1lite.records import Box
from m1lite.toolbox.perception import Detection, detect

if TYPE_CHECKING:
    from torch import Tensor


def track_shape(pixels: Tensor, box: Box) -> list[Box | None]:
    """Follow a coloured shape.

    Args:
        pixels: uint8 ``(N, 3, H, W)``, RGB.
        box: of the object in the first frame, in pixels.

    Returns:
        One box per frame, the first one as given; ``None`` where the shape is not seen.
    """
    first, *rest = detect(pixels)
    best = max(first, key=lambda one: _shared_pixels(one.box, box), default=None)
    if best is None or not _shared_pixels(best.box, box):
        return [box, *[None] * len(rest)]
    return [box, *(_box_of(best.object, detections) for detections in rest)]


def _box_of(name: str, detections: list[Detection]) -> Box | None:
    return next((one.box for one in detections if one.object == name), None)


def _shared_pixels(one: Box, other: Box) -> float:
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    return max(width, 0.0) * max(height, 0.0)
