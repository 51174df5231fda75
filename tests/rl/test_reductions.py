"""Reductions against loops over Python floats, whole and in parts."""

from functools import partial

import pytest
import torch

from m1lite.rl.reductions import fixed_length, sequence_mean, sequence_sum, token_mean

MASK = torch.tensor([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
LOSSES = torch.arange(1.0, 17.0, dtype=torch.float64).reshape(4, 4) * MASK
ROWS = [[1.0, 2.0, 3.0], [6.0], [], [13.0, 14.0]]

EXPECTED = {
    token_mean: sum(map(sum, ROWS)) / 6,
    sequence_mean: (2.0 + 6.0 + 0.0 + 13.5) / 4,
    partial(sequence_mean, count_empty=False): (2.0 + 6.0 + 13.5) / 3,
    sequence_sum: sum(map(sum, ROWS)) / 4,
    partial(fixed_length, length=8): sum(map(sum, ROWS)) / (4 * 8),
}


@pytest.mark.parametrize(("reduction", "expected"), EXPECTED.items())
def test_the_sum_over_units_is_the_loop(reduction, expected):
    divisors, units = reduction(MASK)
    assert divisors.shape == (4, 1)
    assert ((LOSSES / divisors).sum() / units).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("reduction", list(EXPECTED))
def test_parts_of_a_batch_add_up_to_the_whole(reduction):
    total, units = 0.0, 0.0
    for rows in ([0, 3], [2], [1], []):
        divisors, part = reduction(MASK[rows])
        total, units = total + (LOSSES[rows] / divisors).sum(), units + part
    divisors, whole = reduction(MASK)
    assert units == whole
    assert total.item() == pytest.approx((LOSSES / divisors).sum().item(), rel=1e-14)


def test_a_length_of_zero_is_named():
    with pytest.raises(ValueError, match="`length` is 0; it must be above 0"):
        fixed_length(MASK, length=0)
