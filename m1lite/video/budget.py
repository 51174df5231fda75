"""How much of a video a policy is shown: frames per second, how many, and how many pixels. Pure arithmetic.

The same numbers hold for engine and trainer, since every frame carries its size from here on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from m1lite.video.sampling import rate_times, uniform_times

_MAX_RATIO = 200


@dataclass(kw_only=True, slots=True, frozen=True)
class FrameBudget:
    """Bounds on the frames of one look at a video.

    Raises:
        ValueError: if a bound is not positive, or the total does not hold one frame.

    References:
        The bounds are those of the Qwen-VL family as VideoChat-R1 sets them (METHODS B.4). There two frames of a video
        share their tokens, so that ``total_pixels`` holds twice as many; here every frame counts for itself.
    """

    fps: float = 2.0
    """Frames per second, where there is room for so many."""
    max_frames: int = 768
    min_frame_pixels: int = 16 * 28 * 28
    max_frame_pixels: int = 768 * 28 * 28
    total_pixels: int = 3584 * 28 * 28
    """Of all frames together."""

    def __post_init__(self) -> None:
        for name in ("fps", "max_frames", "min_frame_pixels", "max_frame_pixels", "total_pixels"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be above 0.")
        if not self.min_frame_pixels <= min(self.max_frame_pixels, self.total_pixels):
            raise ValueError(
                f"`min_frame_pixels` is {self.min_frame_pixels}, above `max_frame_pixels` {self.max_frame_pixels} or "
                f"`total_pixels` {self.total_pixels}; no frame would fit."
            )

    @property
    def most_frames(self) -> int:
        """How many frames there can be at the least size."""
        return min(self.max_frames, self.total_pixels // self.min_frame_pixels)

    def times(self, start: float, end: float) -> list[float]:
        """Choose the frames of a window: ``fps`` a second, or as many as there may be, spread evenly.

        Args:
            start: seconds.
            end: seconds, above ``start``.

        Returns:
            Seconds, ascending, in ``[start, end)``.

        Example:
            >>> FrameBudget(max_frames=4).times(0, 2), FrameBudget(max_frames=4).times(0, 8)
            ([0.0, 0.5, 1.0, 1.5], [1.0, 3.0, 5.0, 7.0])
        """
        wanted = rate_times(start, end, self.fps)
        return wanted if len(wanted) <= self.most_frames else uniform_times(start, end, self.most_frames)

    def size(self, height: int, width: int, num_frames: int, *, factor: int) -> tuple[int, int]:
        """Choose the size that frames are shown at: the nearest to their own that keeps all bounds.

        Args:
            height: pixels, before.
            width: pixels, before.
            num_frames: that share the total.
            factor: of which height and width become multiples, at least one each.

        Returns:
            Height and width in pixels. One multiple a side is the least, whatever the bounds say.

        Raises:
            ValueError: if the frames are more than the total holds, or longer than 200 times their width.

        Example:
            >>> FrameBudget(max_frame_pixels=56 * 84, min_frame_pixels=28 * 28).size(720, 1280, 1, factor=28)
            (28, 84)
        """
        if not 1 <= num_frames <= self.most_frames:
            raise ValueError(
                f"{num_frames} frames do not fit: the budget holds 1 to {self.most_frames} ({self.total_pixels} pixels "
                f"together, at least {self.min_frame_pixels} a frame); ask for fewer."
            )
        if max(height, width) > _MAX_RATIO * min(height, width):
            raise ValueError(f"A frame of {height} x {width} pixels is too long; at most {_MAX_RATIO} to 1 is allowed.")
        most = min(self.max_frame_pixels, self.total_pixels // num_frames)
        rows, columns = max(1, round(height / factor)), max(1, round(width / factor))
        unit = factor**2
        if rows * columns * unit > most:
            shrink = math.sqrt(height * width / most)
            rows, columns = _floor(height, shrink, factor), _floor(width, shrink, factor)
            # One multiple is the least on the short side; then the long side has to give way.
            rows, columns = min(rows, max(1, most // (columns * unit))), min(columns, max(1, most // (rows * unit)))
        elif rows * columns * unit < self.min_frame_pixels:
            grow = math.sqrt(self.min_frame_pixels / (height * width))
            rows, columns = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
            if rows * columns * unit > most:
                rows, columns = max(1, rows - 1), max(1, columns - 1)
        return rows * factor, columns * factor


def _floor(side: int, shrink: float, factor: int) -> int:
    return max(1, math.floor(side / shrink / factor))
