"""Which seconds of a video to look at. Pure arithmetic; decoding is in video/reader.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

MAX_TIMES = 10_000_000
"""Of one answer; a week at 16 frames per second has fewer."""

Window = tuple[float, float]
"""Half-open ``[start, end)`` in seconds."""


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
    _check_count(num_frames)
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
        ValueError: if the window is empty, ``fps`` is not above 0, or there would be more than ``MAX_TIMES``.

    Example:
        >>> rate_times(3, 5, 2)
        [3.0, 3.5, 4.0, 4.5]
    """
    _check_window(start, end)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"`fps` must be above 0, got {fps}.")
    # Multiplying keeps whole seconds exact; the margin keeps rounding from adding a time at the very end.
    num_frames = max(1, math.ceil((end - start) * fps - 1e-9))
    if num_frames > MAX_TIMES:
        raise ValueError(f"`fps` {fps} from {start} to {end} makes more than {MAX_TIMES} times; ask for fewer.")
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


def shot_times(shots: Sequence[Window], num_frames: int) -> list[float]:
    """Spread times over shots: one in the middle of each, and more in the longer ones.

    Args:
        shots: windows in seconds that do not overlap, in order.
        num_frames: at least 1; below the number of shots, the longest ones are looked at.

    Returns:
        ``num_frames`` ascending seconds, each inside a shot.

    Raises:
        ValueError: if there are no shots, they are empty or overlap, or ``num_frames`` is below 1.

    Example:
        >>> shot_times([(0, 2), (2, 10)], 3)
        [1.0, 4.0, 8.0]
    """
    _check_count(num_frames)
    _check_windows("shots", shots)
    lengths = [end - start for start, end in shots]
    counts = [0] * len(shots)
    for _ in range(
        num_frames
    ):  # each time goes where the least-covered stretch is; the first ones to the longest shots
        fullest = max(range(len(shots)), key=lambda place: (counts[place] == 0, lengths[place] / (counts[place] + 1)))
        counts[fullest] += 1
    return [
        second
        for (start, end), count in zip(shots, counts, strict=True)
        if count
        for second in uniform_times(start, end, count)
    ]


def clue_times(
    start: float, end: float, clues: Sequence[Window], num_frames: int, *, density: float = 1.5
) -> list[float]:
    r"""Spread times over a window, more densely inside clues: the next look of iterative perception.

    .. math:: n_{key} = \mathrm{round}\left(n \cdot \frac{d F_{key}}{d F_{key} + F_{rest}}\right)

    with at least one time in each clue, where F are seconds inside and outside of the clues and d is the density.

    Args:
        start: seconds, at least 0.
        end: seconds, above ``start``.
        clues: windows in seconds; clipped to the window, joined where they overlap, left out where nothing is left.
        num_frames: at least 1.
        density: times per second inside the clues over times per second outside; above 0.

    Returns:
        ``num_frames`` ascending seconds inside ``[start, end)``; uniform where no clue is left. With more clues than
        ``num_frames``, the longest ones get one each.

    Raises:
        ValueError: if the window is empty, ``num_frames`` is below 1 or ``density`` is not above 0.

    References:
        VideoChat-R1.5 (arXiv 2509.21100), the inference code: density 1.5 inside the last clue. It samples frames by
        their numbers and merges doubles; here times are real numbers, of which no two are the same.

    Example:
        >>> [round(second, 2) for second in clue_times(0, 10, [(4, 6)], 8)]
        [0.67, 2.0, 3.33, 4.5, 5.5, 6.67, 8.0, 9.33]
    """
    _check_window(start, end)
    _check_count(num_frames)
    if not 0 < density < math.inf:
        raise ValueError(f"`density` must be above 0, got {density}.")
    inside = joined_windows(start, end, clues)
    if not inside:
        return uniform_times(start, end, num_frames)
    outside = _gaps(start, end, inside)
    key_seconds, rest_seconds = _length(inside), _length(outside)
    share = density * key_seconds / (density * key_seconds + rest_seconds)
    num_key = max(round(num_frames * share), len(inside)) if outside else num_frames
    num_key = min(num_key, num_frames)
    times = shot_times(inside, num_key)
    if num_key < num_frames:
        times += _spread(outside, num_frames - num_key)
    return sorted(times)


def frame_budget(
    num_frames: int, size: tuple[int, int], max_tokens: int, *, patch: int = 28, min_side: int = 56
) -> tuple[int, tuple[int, int]]:
    """Trade frames against resolution at a constant number of tokens.

    Args:
        num_frames: frames wanted, at least 1.
        size: height and width of the video in pixels.
        max_tokens: of all frames together; one token is a square of ``patch`` pixels.
        patch: side of the square that becomes one token.
        min_side: no side gets shorter than this; where that is too much for the budget, frames are given up.

    Returns:
        The number of frames, and their height and width, multiples of ``patch`` and not larger than the video's own
        (rounded down, but at least one patch); together at most ``max_tokens`` tokens.

    Raises:
        ValueError: if an argument is out of range, or not even one frame of ``min_side`` fits.

    Example:
        >>> frame_budget(64, (720, 1280), 8192)
        (64, (224, 420))
        >>> frame_budget(16, (720, 1280), 8192)
        (16, (476, 840))
        >>> frame_budget(4096, (720, 1280), 8192)
        (1024, (56, 112))
    """
    _check_count(num_frames)
    if min(size) < 1 or patch < 1 or min_side < 1:
        raise ValueError(f"`size`, `patch` and `min_side` must be at least 1, got {size}, {patch} and {min_side}.")
    cells = [max(side // patch, 1) for side in size]
    least = _cells_of(size, min_side / min(size), patch, cells)
    affordable = max_tokens // (least[0] * least[1])
    if affordable < 1:
        raise ValueError(
            f"`max_tokens` is {max_tokens}, but one frame of at least {min_side} pixels takes {least[0] * least[1]}."
        )
    kept = min(num_frames, affordable)
    each = max_tokens // kept
    low, high = min_side / min(size), 1.0
    best = least
    for _ in range(40):  # the scale by bisection: rounding to patches leaves no formula
        middle = (low + high) / 2
        rows, columns = _cells_of(size, middle, patch, cells)
        if rows * columns <= each:
            low, best = middle, max(best, (rows, columns), key=lambda cell: cell[0] * cell[1])
        else:
            high = middle
    if cells[0] * cells[1] <= each:
        best = (cells[0], cells[1])
    return kept, (best[0] * patch, best[1] * patch)


def relevant_times(
    seconds: Sequence[float], relevance: Sequence[float], num_frames: int, *, min_gap: float = 0.0
) -> list[float]:
    """Choose the most relevant times that keep a distance from each other.

    Args:
        seconds: candidates, ascending.
        relevance: one score per candidate, from a retriever; higher is better.
        num_frames: at least 1.
        min_gap: seconds that two chosen times are apart. Where too few times keep it, it is halved for the rest, until
            it no longer matters.

    Returns:
        ``min(num_frames, len(seconds))`` of the candidates, ascending.

    Raises:
        ValueError: if the lengths differ, a score is NaN, or an argument is out of range.

    Example:
        >>> relevant_times([0, 1, 2, 8, 9], [0.1, 0.9, 0.8, 0.5, 0.2], 2, min_gap=3)
        [1, 8]
    """
    _check_count(num_frames)
    if len(seconds) != len(relevance) or any(math.isnan(score) for score in relevance):
        raise ValueError(f"`relevance` needs one number for each of {len(seconds)} seconds, got {len(relevance)}.")
    if any(late <= early for early, late in pairwise(seconds)):
        raise ValueError("`seconds` must be ascending, each only once.")
    if not 0 <= min_gap < math.inf:
        raise ValueError(f"`min_gap` must be at least 0, got {min_gap}.")
    waiting = sorted(range(len(seconds)), key=lambda place: (-relevance[place], place))
    chosen: list[float] = []
    gap = float(min_gap)
    closest = min((late - early for early, late in pairwise(seconds)), default=0.0)
    while waiting and len(chosen) < num_frames:
        passed = []
        for place in waiting:
            apart = all(abs(seconds[place] - other) >= gap for other in chosen)
            if apart and len(chosen) < num_frames:
                chosen.append(seconds[place])
            else:
                passed.append(place)
        waiting, gap = passed, gap / 2 if gap > closest else 0.0
    return sorted(chosen)


def finer_windows(
    seconds: Sequence[float], relevance: Sequence[float], start: float, end: float, num_windows: int
) -> list[Window]:
    """Zoom in from coarse to fine: the stretches around the most relevant times, up to the middle to their neighbours.

    Args:
        seconds: the times looked at so far, ascending, inside ``[start, end)``.
        relevance: one score per time; higher is better.
        start: of the window looked at, in seconds.
        end: of the window looked at.
        num_windows: how many times to keep, at least 1.

    Returns:
        At most ``num_windows`` windows in order, neighbours joined; sample them again and repeat.

    Raises:
        ValueError: as ``relevant_times``, or if a time is outside of the window.

    Example:
        >>> finer_windows([5, 15, 25, 35], [0.1, 0.9, 0.7, 0.2], 0, 40, num_windows=1)
        [(10.0, 20.0)]
        >>> finer_windows([5, 15, 25, 35], [0.1, 0.9, 0.7, 0.2], 0, 40, num_windows=2)
        [(10.0, 30.0)]
    """
    _check_window(start, end)
    kept = set(relevant_times(seconds, relevance, num_windows))
    if seconds and not (start <= seconds[0] and seconds[-1] < end):
        raise ValueError(f"`seconds` from {seconds[0]} to {seconds[-1]} leave the window from {start} to {end}.")
    edges = [float(start), *((early + late) / 2 for early, late in pairwise(seconds)), float(end)]
    around = [(edges[place], edges[place + 1]) for place, second in enumerate(seconds) if second in kept]
    return joined_windows(start, end, around)


def joined_windows(start: float, end: float, windows: Sequence[Window]) -> list[Window]:
    """Clip windows to ``[start, end)``, sort them and join those that touch; what is empty or outside is left out."""
    clipped = sorted((max(one, start), min(other, end)) for one, other in windows)
    joined: list[Window] = []
    for one, other in clipped:
        if not one < other:  # outside, empty or NaN
            continue
        if joined and one <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], other)
        else:
            joined.append((one, other))
    return joined


def _gaps(start: float, end: float, windows: Sequence[Window]) -> list[Window]:
    edges = [start, *(edge for window in windows for edge in window), end]
    return [(one, other) for one, other in zip(edges[::2], edges[1::2], strict=True) if one < other]


def _length(windows: Sequence[Window]) -> float:
    return sum(end - start for start, end in windows)


def _spread(windows: Sequence[Window], num_frames: int) -> list[float]:
    """Spread times over windows as if they were one: the middles of equal parts of their whole length."""
    places = uniform_times(0, _length(windows), num_frames)
    times, passed = [], 0.0
    for start, end in windows:
        inside = [place for place in places if passed <= place < passed + end - start]
        times += [min(start + place - passed, math.nextafter(end, start)) for place in inside]
        passed += end - start
    # Rounding of the sums can leave the last place out.
    return times + [math.nextafter(windows[-1][1], windows[-1][0])] * (num_frames - len(times))


def _cells_of(size: tuple[int, int], scale: float, patch: int, most: Sequence[int]) -> tuple[int, int]:
    rows, columns = (min(max(round(side * scale / patch), 1), cap) for side, cap in zip(size, most, strict=True))
    return rows, columns


def _check_count(num_frames: int) -> None:
    if num_frames < 1:
        raise ValueError(f"`num_frames` must be at least 1, got {num_frames}.")


def _check_windows(name: str, windows: Sequence[Window]) -> None:
    if not windows:
        raise ValueError(f"`{name}` is empty; give at least one window.")
    for start, end in windows:
        _check_window(start, end)
    for (_, end), (start, _) in pairwise(windows):
        if start < end:
            raise ValueError(f"`{name}` must be in order and not overlap; one begins at {start} before {end}.")


def _check_window(start: float, end: float) -> None:
    if not 0 <= start < end < math.inf:
        raise ValueError(f"A window needs 0 <= start < end (seconds), got start={start}, end={end}.")
