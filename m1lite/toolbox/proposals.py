"""From a curve of relevance over time to the stretches that stand out of it. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from m1lite.video.sampling import Window


def relevant_windows(
    seconds: Sequence[float], relevance: Sequence[float], count: int, *, end: float
) -> list[tuple[Window, float]]:
    r"""Propose windows: those over which the relevance, less a threshold, adds up to the most.

    .. math:: W^* = \arg\max_{W} \sum_{t \in W} (r_t - \theta)

    where the threshold is that of :func:`event_threshold`. A dip inside of an event is bridged where the event's ends
    outweigh it. Further windows are sought left and right of those found.

    Args:
        seconds: ascending.
        relevance: one score for each.
        count: how many windows at most, at least 1.
        end: of the video or of the window that was looked at; above the last second.

    Returns:
        Windows from a second to the next one after the last inside, with the mean relevance inside less the threshold,
        those with the largest sum first; none where all scores are equal.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> relevant_windows([0, 1, 2, 3, 4, 5], [0.1, 0.1, 0.9, 0.5, 0.9, 0.1], 1, end=6)
        [((2, 5), 0.466667)]
    """
    if len(seconds) != len(relevance) or count < 1:
        raise ValueError(
            f"`relevance` needs one number for each of {len(seconds)} seconds and `count` at least 1, got "
            f"{len(relevance)} and {count}."
        )
    if any(late <= early for early, late in pairwise([*seconds, end])):
        raise ValueError("`seconds` must be ascending and `end` after the last.")
    if len(set(relevance)) < 2:
        return []
    threshold = event_threshold(relevance)
    above = [score - threshold for score in relevance]
    edges = [*seconds, end]
    stretches, found = [(0, len(above))], []
    while stretches:
        low, high = stretches.pop()
        best = _largest_sum(above, low, high)
        if best is not None:
            total, first, beyond = best
            found.append((total, first, beyond))
            stretches += [(low, first), (beyond, high)]
    found.sort(key=lambda one: (-one[0], one[1]))
    return [
        ((edges[first], edges[beyond]), round(total / (beyond - first), 6)) for total, first, beyond in found[:count]
    ]


def event_threshold(values: Sequence[float]) -> float:
    """Split relevance into that of an event and that of the rest.

    Scenes differ in relevance among each other too. So where more than half of the scores lie above the split into two
    groups, these are split again, as long as they fall apart at least a quarter as far as all of them
    did.

    Args:
        values: at least two different ones.

    Example:
        >>> event_threshold([0.0, 0.1, 0.5, 0.5, 0.6, 1.0, 0.9])
        0.75
    """
    threshold = two_group_threshold(values)
    widest = _distance(values, threshold)
    while True:
        high = [value for value in values if value > threshold]
        if 2 * len(high) <= len(values) or len(set(high)) < 2:
            return threshold
        further = two_group_threshold(high)
        if 4 * _distance(high, further) < widest:
            return threshold
        threshold = further


def _distance(values: Sequence[float], threshold: float) -> float:
    """Subtract the mean of what lies below from the mean of what lies above."""
    low, high = [value for value in values if value < threshold], [value for value in values if value >= threshold]
    return sum(high) / len(high) - sum(low) / len(low)


def two_group_threshold(values: Sequence[float]) -> float:
    """Split numbers into low and high ones so that the variance between the groups is largest (Otsu 1979).

    Args:
        values: at least two different ones.

    Returns:
        The middle between the groups.

    Example:
        >>> two_group_threshold([0.1, 0.3, 0.9, 0.7])
        0.5
    """
    ordered = sorted(values)
    total, low_sum = sum(ordered), 0.0
    best, threshold = -1.0, ordered[0]
    for count, (value, after) in enumerate(pairwise(ordered), 1):
        low_sum += value
        low, high = low_sum / count, (total - low_sum) / (len(ordered) - count)
        between = count * (len(ordered) - count) * (high - low) ** 2
        if value < after and between > best:
            best, threshold = between, (value + after) / 2
    return threshold


def _largest_sum(values: Sequence[float], low: int, high: int) -> tuple[float, int, int] | None:
    """Find the run in ``[low, high)`` with the largest sum above 0, the earliest and shortest of equals (Kadane)."""
    best: tuple[float, int, int] | None = None
    running, first = 0.0, low
    for place in range(low, high):
        if running <= 0:
            running, first = 0.0, place
        running += values[place]
        if running > 0 and (best is None or running > best[0] + 1e-12):
            best = running, first, place + 1
    return best
