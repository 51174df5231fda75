"""Ratios against loops over Python floats."""

import math

import pytest
import torch

from m1lite.rl.ratios import sequence_ratio, token_ratio

MASK = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
NEW = torch.tensor([[-1.0, -2.0, 9.0], [float("nan"), -0.5, -1.5], [float("inf"), 0.0, 0.0]], dtype=torch.float64)
OLD = torch.tensor([[-1.5, -1.0, 0.0], [0.0, -1.0, -1.0], [0.0, float("nan"), 0.0]], dtype=torch.float64)


def test_token_ratio_equals_the_loop_and_is_one_outside():
    found = token_ratio(NEW, OLD, MASK)
    for row in range(3):
        for place in range(3):
            kept = bool(MASK[row, place])
            expected = math.exp(NEW[row, place].item() - OLD[row, place].item()) if kept else 1.0
            assert found[row, place].item() == pytest.approx(expected)


def test_sequence_ratio_is_the_geometric_mean_of_the_tokens():
    found = sequence_ratio(NEW, OLD, MASK)
    assert found.shape == (3, 1)
    assert found[:, 0].tolist() == pytest.approx([math.exp((0.5 - 1.0) / 2), math.exp((0.5 - 0.5) / 2), 1.0])


def test_gradients_reach_every_token_of_the_sequence_and_nothing_outside():
    new = torch.where(MASK, NEW, 0.0).requires_grad_()
    (gradient,) = torch.autograd.grad(sequence_ratio(new, OLD.nan_to_num(), MASK).sum(), new)
    ratio = math.exp(-0.25)
    assert gradient[0].tolist() == pytest.approx([ratio / 2, ratio / 2, 0.0])
    assert (gradient[~MASK] == 0).all()


@pytest.mark.parametrize("ratio", [token_ratio, sequence_ratio])
def test_shapes_are_named(ratio):
    with pytest.raises(ValueError, match=r"`old_logprobs` has shape \(2, 3\), but the log-probs have \(3, 3\)"):
        ratio(NEW, OLD[:2], MASK)
