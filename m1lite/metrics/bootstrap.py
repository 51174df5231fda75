"""How sure a mean score is: bootstrap over videos, paired differences, and Holm's correction for several tests.

Questions about one video are not independent, so whole videos are drawn (clusters). A score of several tasks is the
unweighted mean of the tasks' means. Intervals are BCa: corrected for bias and skew, and never outside the range of the
draws. Numbers in, numbers out; which scores are compared is the caller's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

_NORMAL = NormalDist()


@dataclass(kw_only=True, slots=True, frozen=True)
class Estimate:
    """A mean with its interval."""

    mean: float
    low: float
    """Lower end of the interval; NaN with fewer than two clusters."""
    high: float
    """Upper end of the interval; NaN with fewer than two clusters."""
    n: int
    """Number of values."""
    p_value: float
    """Two-sided, for a true mean of 0, from the same draws: at the level where the interval just touches 0."""


def bootstrap_mean(
    values: Sequence[float] | NDArray[np.floating],
    clusters: Sequence[Hashable],
    *,
    tasks: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_draws: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Estimate a mean and its interval, drawing whole clusters with replacement.

    Args:
        values: one score per question.
        clusters: the video of each question.
        tasks: the task of each question: the estimate is then the unweighted mean of the tasks' means (a task that a
            draw misses is left out of that draw). None: the plain mean.
        level: coverage of the interval, in (0, 1).
        num_draws: bootstrap draws.
        seed: of the draws; the same seed and number of clusters give the same draws.

    Returns:
        The estimate; its interval is BCa (bias-corrected and accelerated).

    Raises:
        ValueError: if the lengths differ, there are no values, a value is not finite, or ``level`` is out of range.

    References:
        Efron 1987, "Better bootstrap confidence intervals", JASA 82, 171-185, for the interval; its inversion gives the
        p-value. Clusters: Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8.

    Example:
        >>> estimate = bootstrap_mean([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b", "c", "c"])
        >>> estimate.n, round(estimate.mean, 3)
        (6, 0.667)
    """
    scores = np.asarray(values, dtype=np.float64)
    _check(scores, clusters, tasks, level)
    sums, counts = _totals(scores, clusters, tasks)
    mean = float(_task_mean(sums.sum(0), counts.sum(0)))
    if len(sums) < 2:
        return Estimate(mean=mean, low=math.nan, high=math.nan, n=len(scores), p_value=math.nan)
    weights = _cluster_weights(len(sums), num_draws, seed)
    draws = np.sort(_task_mean(weights @ sums, weights @ counts))  # (draws,)
    left_out = _task_mean(sums.sum(0) - sums, counts.sum(0) - counts)  # (clusters,), each cluster absent once
    low, high, p_value = _bca(mean, draws, left_out, level)
    return Estimate(mean=mean, low=low, high=high, n=len(scores), p_value=p_value)


def bootstrap_difference(
    first: Sequence[float] | NDArray[np.floating],
    second: Sequence[float] | NDArray[np.floating],
    clusters: Sequence[Hashable],
    *,
    tasks: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_draws: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Estimate the mean of ``first - second``, paired by question.

    Args:
        first: one score per question.
        second: the other score of the same questions, in the same order.
        clusters: the video of each question.
        tasks: as in :func:`bootstrap_mean`.
        level: coverage of the interval, in (0, 1).
        num_draws: bootstrap draws.
        seed: of the draws.

    Returns:
        The estimate of the difference.

    Raises:
        ValueError: as in :func:`bootstrap_mean`.

    Example:
        >>> estimate = bootstrap_difference([0.9, 0.8, 0.7], [0.1, 0.2, 0.3], ["a", "b", "c"])
        >>> round(estimate.mean, 3), estimate.low > 0
        (0.6, True)
    """
    if len(first) != len(second):
        raise ValueError(f"`first` holds {len(first)} scores and `second` {len(second)}; pairs need one of each.")
    gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return bootstrap_mean(gaps, clusters, tasks=tasks, level=level, num_draws=num_draws, seed=seed)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    r"""Correct the p-values of several tests, so that the chance of any false finding stays below the level.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Args:
        p_values: test name to p-value in [0, 1].

    Returns:
        The same names in the same order, with adjusted p-values.

    Raises:
        ValueError: if a p-value is outside [0, 1] or NaN.

    References:
        Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 65-70.

    Example:
        >>> holm({"grounding": 0.01, "choice": 0.04, "counting": 0.03})
        {'grounding': 0.03, 'choice': 0.06, 'counting': 0.06}
    """
    for name, p_value in p_values.items():
        if not 0 <= p_value <= 1:
            raise ValueError(f"The p-value of {name!r} is {p_value}; it must be in [0, 1].")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _check(
    scores: NDArray[np.float64], clusters: Sequence[Hashable], tasks: Sequence[Hashable] | None, level: float
) -> None:
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"`values` has shape {scores.shape}; it must hold at least one score, in one dimension.")
    for name, labels in (("clusters", clusters), ("tasks", tasks)):
        if labels is not None and len(labels) != len(scores):
            raise ValueError(f"`{name}` holds {len(labels)} labels for {len(scores)} values; give one for each.")
    if not np.isfinite(scores).all():
        index = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"`values[{index}]` is {scores[index]}; leave missing scores out before the bootstrap.")
    if not 0 < level < 1:
        raise ValueError(f"`level` is {level}; it must be in (0, 1), such as 0.95.")


def _totals(
    scores: NDArray[np.float64], clusters: Sequence[Hashable], tasks: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of scores per cluster and task, both ``(clusters, tasks)``."""
    rows = _codes(clusters)
    columns = np.zeros(len(scores), dtype=np.int64) if tasks is None else _codes(tasks)
    sums = np.zeros((rows.max() + 1, columns.max() + 1))
    counts = np.zeros_like(sums)
    np.add.at(sums, (rows, columns), scores)
    np.add.at(counts, (rows, columns), 1.0)
    return sums, counts


def _codes(labels: Sequence[Hashable]) -> NDArray[np.int64]:
    """Number the distinct labels in order of appearance."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels], dtype=np.int64)


def _task_mean(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unweighted mean over the tasks that occur of the tasks' means: ``(..., tasks)`` to ``(...)``."""
    present = counts > 0
    means = np.where(present, sums / np.where(present, counts, 1.0), 0.0)
    return means.sum(-1) / present.sum(-1)


@lru_cache(maxsize=4)
def _cluster_weights(num_clusters: int, num_draws: int, seed: int) -> NDArray[np.float64]:
    """How often each cluster occurs in each draw, ``(draws, clusters)``; kept, since many figures share one split."""
    generator = np.random.default_rng(seed)
    picks = generator.integers(num_clusters, size=(num_draws, num_clusters))
    picks += num_clusters * np.arange(num_draws)[:, None]
    weights = np.bincount(picks.ravel(), minlength=num_draws * num_clusters).reshape(num_draws, num_clusters)
    return weights.astype(np.float64)


def _bca(
    mean: float, draws: NDArray[np.float64], left_out: NDArray[np.float64], level: float
) -> tuple[float, float, float]:
    """Lower end, upper end and two-sided p-value for a true mean of 0, from sorted draws."""
    bias = _NORMAL.inv_cdf(_share_below(mean, draws))
    gaps = left_out.mean() - left_out
    spread = float((gaps**2).sum())
    # Equal clusters leave only rounding, from which no skew can be read.
    skew = float((gaps**3).sum()) / (6 * spread**1.5) if spread > 1e-20 else 0.0

    def quantile(tail: float) -> float:
        shift = bias + _NORMAL.inv_cdf(tail)
        position = _NORMAL.cdf(bias + _stretch(shift, skew)) * (len(draws) - 1)
        return float(np.interp(position, np.arange(len(draws)), draws))

    tail = (1 - level) / 2
    shift = _NORMAL.inv_cdf(_share_below(0.0, draws)) - bias
    below = _NORMAL.cdf(_stretch(shift, -skew) - bias)
    return quantile(tail), quantile(1 - tail), 2 * min(below, 1 - below)


def _stretch(shift: float, skew: float) -> float:
    """``shift / (1 - skew * shift)``, and infinite beyond its pole, which few and very skewed clusters can reach."""
    denominator = 1 - skew * shift
    return shift / denominator if denominator > 0 else math.copysign(math.inf, shift)


def _share_below(value: float, draws: NDArray[np.float64]) -> float:
    """Share of sorted draws below a value, ties counted half, kept off 0 and 1."""
    margin = 1e-12 * max(1.0, abs(value))  # equal means differ by their rounding
    below = np.searchsorted(draws, value - margin, side="left")
    up_to = np.searchsorted(draws, value + margin, side="right")
    share = (below + up_to) / 2 / len(draws)
    return float(np.clip(share, 0.5 / len(draws), 1 - 0.5 / len(draws)))
