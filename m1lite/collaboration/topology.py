"""Who reads whom: the whole team, nobody, or a random directed acyclic graph (agent dropout).

A topology is a function of the agents' names and a random generator, ``topology(names, rng)``; it gives agent name to
the names of the peers that the agent reads, in team order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

Visible = dict[str, tuple[str, ...]]
Topology = Callable[[Sequence[str], "Random"], Visible]


def complete(names: Sequence[str], rng: Random) -> Visible:
    """Let everybody read everybody; draws nothing.

    Example:
        >>> complete(["ada", "bea", "cyd"], None)["bea"]
        ('ada', 'cyd')
    """
    return {name: tuple(peer for peer in names if peer != name) for name in names}


def hidden(names: Sequence[str], rng: Random) -> Visible:
    """Let nobody read anybody; draws nothing."""
    return dict.fromkeys(names, ())


@dataclass(frozen=True)
class RandomDag:
    """Agent dropout: order the agents at random and let each read an earlier one with a probability.

    The law of the graph is our reading; VideoChat-M1 only says that a random acyclic graph is drawn per training step.
    """

    p: float = 0.5
    """Probability of each edge that agrees with the order; 1 gives a random total order."""

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"`p` is {self.p}; a probability lies between 0 and 1.")

    def __call__(self, names: Sequence[str], rng: Random) -> Visible:
        """Draw a graph.

        Example:
            >>> from random import Random
            >>> RandomDag(1.0)(["ada", "bea", "cyd"], Random(0))
            {'ada': ('bea', 'cyd'), 'bea': (), 'cyd': ('bea',)}
        """
        order = rng.sample(list(names), len(names))
        read: dict[str, set[str]] = {name: set() for name in names}
        for place, name in enumerate(order):
            read[name].update(earlier for earlier in order[:place] if rng.random() < self.p)
        return {name: tuple(peer for peer in names if peer in read[name]) for name in names}
