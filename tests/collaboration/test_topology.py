"""Topologies: complete, hidden, and random graphs without cycles whose edges have the stated frequency."""

from collections import Counter
from graphlib import TopologicalSorter
from random import Random

import pytest

from m1lite.collaboration.topology import RandomDag, complete, hidden

NAMES = ["ada", "bea", "cyd", "dov"]


def test_complete_and_hidden():
    assert complete(NAMES, Random(0))["cyd"] == ("ada", "bea", "dov")
    assert hidden(NAMES, Random(0)) == {"ada": (), "bea": (), "cyd": (), "dov": ()}


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_random_graphs_have_no_cycle_and_the_stated_number_of_edges(p):
    rng, edges, pairs = Random(1), 0, Counter()
    for _ in range(2000):
        visible = RandomDag(p)(NAMES, rng)
        order = list(TopologicalSorter(visible).static_order())  # raises on a cycle
        assert sorted(order) == NAMES
        assert all(list(peers) == sorted(peers) for peers in visible.values()), "in team order"
        pairs.update((reader, peer) for reader, peers in visible.items() for peer in peers)
        edges += sum(len(peers) for peers in visible.values())
    assert edges / 2000 == pytest.approx(6 * p, abs=0.15), "p of the 6 pairs"
    if p:
        assert len(pairs) == 12
        assert min(pairs.values()) > 0.8 * max(pairs.values()), "no agent is favoured"


def test_the_same_seed_gives_the_same_graph():
    assert RandomDag(0.5)(NAMES, Random(7)) == RandomDag(0.5)(NAMES, Random(7))
    assert len({str(RandomDag(0.5)(NAMES, Random(seed))) for seed in range(20)}) > 10


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_a_probability_is_asked_for(p):
    with pytest.raises(ValueError, match=f"`p` is {p}; a probability lies between 0 and 1"):
        RandomDag(p)
