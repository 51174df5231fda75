"""Which seconds of a video to look at. Pure arithmetic; decoding is in video/reader.py."""

from __future__ import annotations

import math


def uniform_times(start: float, end: float, num_frames: int) -> list[float]:
    """Spread times over a window: the middles of ``num_frames`` equal parts.

    Args:
        start: seconds, at least 0.
        end: seconds, above ``start``.
        num_frames: at least 1.

    Returns:
        Seconds, ascending, all inside ``[start, end)``.

    Raises:
        ValueError: if the window is empty or ``num_frames`` is below 1.

    Example:
        >>> uniform_times(10, 20, 4)
        [11.25, 13.75, 16.25, 18.75]
    """
    _check_window(start, end)
    if num_frames < 1:
        raise ValueError(f"`num_frames` must be at least 1, got {num_frames}.")
    return [start + (end - start) * (2 * index + 1) / (2 * num_frames) for index in range(num_frames)]


def rate_times(start: float, end: float, fps: float) -> list[float]:
    """Step through a window at a fixed rate, beginning with ``start``.

    Args:
        start: seconds, at least 0.
        end: seconds, above ``start``; not reached.
        fps: times per second, above 0.

    Returns:
        Seconds, ascending, all inside ``[start, end)``.

    Raises:
        ValueError: if the window is empty or ``fps`` is not above 0.

    Example:
        >>> rate_times(3, 5, 2)
        [3.0, 3.5, 4.0, 4.5]
    """
    _check_window(start, end)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"`fps` must be above 0, got {fps}.")
    # Multiplying keeps whole seconds exact; the margin keeps rounding from adding a time at the very end.
    num_frames = max(1, math.ceil((end - start) * fps - 1e-9))
    return [start + index / fps for index in range(num_frames)]


def clip_windows(duration: float, clip_seconds: float) -> list[tuple[float, float]]:
    """Cut a video into clips of equal length; the last one may be shorter.

    Args:
        duration: seconds, above 0.
        clip_seconds: above 0.

    Returns:
        Half-open windows ``[start, end)`` in seconds, in order.

    Raises:
        ValueError: if a length is not above 0.

    Example:
        >>> clip_windows(20, 8)
        [(0, 8), (8, 16), (16, 20)]
    """
    _check_window(0, duration)
    if not clip_seconds > 0:
        raise ValueError(f"`clip_seconds` must be above 0, got {clip_seconds}.")
    count = max(1, math.ceil(duration / clip_seconds - 1e-9))
    return [(index * clip_seconds, min((index + 1) * clip_seconds, duration)) for index in range(count)]


def _check_window(start: float, end: float) -> None:
    if not 0 <= start < end < math.inf:
        raise ValueError(f"A window needs 0 <= start < end (seconds), got start={start}, end={end}.")
