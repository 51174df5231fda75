"""Choose few frames that are relevant and unlike each other: a determinantal point process, greedily. Pure tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_GAIN = 1e-10


def diverse_choice(relevance: Tensor, vectors: Tensor, count: int, *, weight: float = 1.0) -> list[int]:
    r"""Choose rows that make the determinant of their kernel large, one by one.

    .. math:: L_{ij} = e^{w (r_i + r_j)} \langle v_i, v_j \rangle

    Args:
        relevance: float ``(N,)``, higher is better; only differences matter.
        vectors: float ``(N, D)``, of length 1.
        count: how many rows to choose, at least 1.
        weight: w, of relevance against diversity, at least 0.

    Returns:
        ``min(count, N)`` rows, in the order chosen: the most relevant first. Rows that the chosen ones leave nothing
        of come last, by relevance.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Chen, Zhang and Zhou 2018, arXiv:1709.05135, algorithm 1. TimeSearch-R (arXiv:2511.05489) searches frames so.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> diverse_choice(torch.tensor([0.9, 0.8, 0.1]), vectors, 2)
        [0, 2]
    """
    if len(relevance) != len(vectors) or count < 1 or weight < 0:
        raise ValueError(
            f"`relevance` of {len(relevance)} needs as many `vectors`, got {len(vectors)}; `count` must be at least 1 "
            f"and `weight` at least 0, got {count} and {weight}."
        )
    scores = weight * (relevance.double() - relevance.double().max())  # a common factor changes no choice
    scaled = vectors.double() * scores.exp()[:, None]
    gains = scaled.square().sum(1)  # (N,): what of each row is outside of the span of the chosen ones, squared
    basis = torch.zeros(len(scaled), 0, dtype=torch.float64)
    chosen: list[int] = []
    while len(chosen) < min(count, len(scaled)):
        best = int(gains.argmax())
        if gains[best] < _LEAST_GAIN:
            rest = [row for row in scores.argsort(descending=True, stable=True).tolist() if row not in chosen]
            return chosen + rest[: count - len(chosen)]
        column = (scaled @ scaled[best] - basis @ basis[best]) / gains[best].sqrt()
        basis = torch.cat([basis, column[:, None]], 1)
        gains = gains - column.square()
        chosen.append(best)
        gains[chosen] = -torch.inf
    return chosen
