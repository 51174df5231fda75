"""Greedy choices against determinants of every candidate set, computed whole."""

import pytest
import torch

from m1lite.toolbox.diversity import diverse_choice


def reference(relevance, vectors, count, weight):
    kernel = (vectors @ vectors.T).double() * torch.exp(weight * (relevance[:, None] + relevance[None])).double()
    chosen = []
    for _ in range(count):
        best, value = None, -1.0
        for row in range(len(vectors)):
            if row not in chosen:
                rows = [*chosen, row]
                determinant = float(torch.linalg.det(kernel[rows][:, rows]))
                if determinant > value:
                    best, value = row, determinant
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])  # at 0 every first choice is as good, up to the last bit
def test_against_determinants(weight):
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        vectors = torch.nn.functional.normalize(torch.randn(9, 6, generator=generator), dim=1)
        relevance = torch.rand(9, generator=generator)
        assert diverse_choice(relevance, vectors, 5, weight=weight) == reference(relevance, vectors, 5, weight)


def test_copies_come_last_by_relevance():
    vectors = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]])
    relevance = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.0])
    assert diverse_choice(relevance, vectors, 9) == [1, 4, 3, 2, 0]
    assert diverse_choice(relevance, vectors, 1) == [1]


def test_large_relevance_does_not_overflow():
    vectors = torch.nn.functional.normalize(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    relevance = torch.tensor([1000.0, 999.0, 998.0, 997.0, 996.0])
    assert diverse_choice(relevance, vectors, 3) == [0, 1, 2]


def test_arguments():
    with pytest.raises(ValueError, match="`relevance` of 2 needs as many `vectors`, got 3"):
        diverse_choice(torch.zeros(2), torch.zeros(3, 4), 1)
    with pytest.raises(ValueError, match="`count` must be at least 1"):
        diverse_choice(torch.zeros(2), torch.zeros(2, 4), 0)
