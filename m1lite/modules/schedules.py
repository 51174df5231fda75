"""Learning rates over a run: functions of the step and the number of steps, without any state.

So a run that is continued has the rate of one that was never stopped. Each gives a factor of the optimiser's own rate;
bind its numbers with ``functools.partial``. What the factor is applied to is ``marl.py``'s.
"""

from __future__ import annotations

import math
from typing import Protocol


class Schedule(Protocol):
    """Gives the share of an optimiser's learning rate that a step is taken with."""

    def __call__(self, step: int, max_steps: int) -> float:
        """Return a factor of at least 0.

        ``step`` counts from 0; ``max_steps`` is -1 where their number is not limited.
        """


def constant(step: int, max_steps: int, *, warmup_steps: int = 0) -> float:
    """Rise to the full rate over the warm-up, then keep it.

    Args:
        step: from 0.
        max_steps: of the run; not read, it may be unlimited.
        warmup_steps: how many steps are taken below the full rate, at least 0; the first at 1 / (warmup_steps + 1).

    Returns:
        In (0, 1].

    Raises:
        ValueError: if ``warmup_steps`` is negative.

    Example:
        >>> [constant(step, -1, warmup_steps=3) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    if warmup_steps < 0:
        raise ValueError(f"`warmup_steps` is {warmup_steps}; it must be at least 0.")
    return min(1.0, (step + 1) / (warmup_steps + 1))


def linear(step: int, max_steps: int, *, warmup_steps: int = 0, floor: float = 0.0) -> float:
    """Rise over the warm-up, then fall along a line that reaches the floor where the run ends.

    Args:
        step: from 0.
        max_steps: of the run, more than ``warmup_steps``.
        warmup_steps: as in :func:`constant`.
        floor: share of the rate at the end, in [0, 1].

    Returns:
        In [floor, 1] after the warm-up; the floor itself from ``max_steps`` on.

    Raises:
        ValueError: if the steps are not limited or all warm-up, or a value is out of range.

    Example:
        >>> [linear(step, 6, warmup_steps=2) for step in range(2, 7)]
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    rise = constant(step, max_steps, warmup_steps=warmup_steps)
    return rise * (floor + (1 - floor) * (1 - _fallen(step, max_steps, warmup_steps, floor)))


def cosine(step: int, max_steps: int, *, warmup_steps: int = 0, floor: float = 0.0) -> float:
    r"""Rise over the warm-up, then fall along half a cosine that reaches the floor where the run ends.

    .. math:: f + (1 - f) \tfrac{1}{2} (1 + \cos \pi p)

    with the floor f and the share p of the steps after the warm-up that are done.

    Args:
        step: from 0.
        max_steps: of the run, more than ``warmup_steps``.
        warmup_steps: as in :func:`constant`.
        floor: share of the rate at the end, in [0, 1].

    Returns:
        In [floor, 1] after the warm-up; the floor itself from ``max_steps`` on.

    Raises:
        ValueError: if the steps are not limited or all warm-up, or a value is out of range.

    References:
        Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts.

    Example:
        >>> [round(cosine(step, 6, warmup_steps=2, floor=0.1), 3) for step in range(2, 7)]
        [1.0, 0.868, 0.55, 0.232, 0.1]
    """
    rise = constant(step, max_steps, warmup_steps=warmup_steps)
    share = (1 + math.cos(math.pi * _fallen(step, max_steps, warmup_steps, floor))) / 2
    return rise * (floor + (1 - floor) * share)


def _fallen(step: int, max_steps: int, warmup_steps: int, floor: float) -> float:
    """Return which share of the fall is done."""
    if max_steps <= warmup_steps:
        raise ValueError(
            f"`max_steps` is {max_steps} with `warmup_steps` {warmup_steps}; a rate that falls to the end of a run "
            "needs `trainer.max_steps` above the warm-up, or take `constant`."
        )
    if not 0 <= floor <= 1:
        raise ValueError(f"`floor` is {floor}; it is a share of the learning rate and must be in [0, 1].")
    return min(1.0, max(0.0, (step - warmup_steps) / (max_steps - warmup_steps)))
