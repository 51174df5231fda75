"""Weights between engine and trainer against loops, and what they are for: an unbiased mean under another sampler."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m1lite.engines.base import Sampling
from m1lite.rl.mismatch import effective_sample_size, importance_weights, off_policy_mask

NAN = float("nan")
SHAPE = (3, 5)


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    sampled = -3 * torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    old = sampled + 0.4 * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    mask = torch.rand(SHAPE, generator=generator) > 0.3
    mask[2] = False
    return old, sampled, mask


@pytest.mark.parametrize("level", ["token", "sequence_sum", "sequence_mean"])
@pytest.mark.parametrize("outside", ["truncate", "mask"])
def test_weights_equal_the_loop(level, outside):
    old, sampled, mask = draw()
    found = importance_weights(old, sampled, mask, level=level, outside=outside, low=0.9, high=1.05)
    bounded = 0
    for row in range(SHAPE[0]):
        gaps = [(old[row, t] - sampled[row, t]).item() if mask[row, t] else 0.0 for t in range(SHAPE[1])]
        if level == "sequence_sum":
            gaps = [sum(gaps)]
        elif level == "sequence_mean":
            gaps = [sum(gaps) / max(1, mask[row].sum().item())]
        for gap, weight in zip(gaps, found[row].tolist(), strict=True):
            expected = math.exp(gap)
            if not 0.9 <= expected <= 1.05:
                bounded += 1
                expected = min(max(expected, 0.9), 1.05) if outside == "truncate" else 0.0
            assert weight == pytest.approx(expected)
    assert bounded > 0
    assert not found.requires_grad


def test_a_token_without_a_log_prob_counts_as_no_difference():
    old, sampled, mask = draw()
    mask[0, 0] = True
    sampled[0, 0] = NAN
    same = sampled.clone()
    same[0, 0] = old[0, 0]
    for level in ("token", "sequence_sum"):
        weigh = partial(importance_weights, level=level, high=9.0)
        assert torch.equal(weigh(old, sampled, mask), weigh(old, same, mask))


def test_the_weighted_mean_under_the_engine_is_the_mean_under_the_trainer():
    engine, trainer = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    worth = torch.tensor([1.0, -2.0, 3.0])
    weights = importance_weights(trainer.log()[:, None], engine.log()[:, None], torch.ones(3, 1).bool(), high=10.0)
    assert (engine * weights[:, 0] * worth).sum().item() == pytest.approx((trainer * worth).sum().item())


@given(values=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=12))
@settings(deadline=None, max_examples=50)
def test_effective_sample_size_is_a_share(values):
    weights = torch.tensor([values], dtype=torch.float64)
    found = effective_sample_size(weights, torch.ones_like(weights).bool()).item()
    total, squares = sum(values), sum(v * v for v in values)
    assert -1e-9 <= found <= 1 + 1e-9
    if squares > 1e-9:
        assert found == pytest.approx(total**2 / (len(values) * squares))


def test_effective_sample_size_by_hand():
    mask = torch.tensor([[True, True], [False, True]])
    assert effective_sample_size(torch.ones(2, 1), mask) == 1
    assert effective_sample_size(torch.tensor([[3.0, 0.0], [9.0, 0.0]]), mask).item() == pytest.approx(1 / 3)
    assert effective_sample_size(torch.ones(2, 2), mask & False).isnan()


def test_off_policy_mask_by_hand():
    sampled = torch.tensor([[-1.0, -1.0], [-1.0, -1.0], [-1.0, NAN]])
    now = torch.tensor([[-1.2, -2.0], [-1.2, -1.2], [-1.2, -9.0]])
    advantages = torch.tensor([[-1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]])
    mask = torch.ones(3, 2, dtype=torch.bool)
    found = off_policy_mask(now, sampled, advantages, mask, threshold=0.5)
    # The first row has strayed by 0.6 per token: its bad token is dropped, its good one kept.
    assert found.tolist() == [[False, True], [True, True], [True, True]]


@pytest.mark.parametrize(
    ("name", "value", "neutral"), [("top_p", 0.9, "1.0"), ("top_k", 20, "0"), ("min_p", 0.1, "0.0")]
)
def test_truncated_sampling_is_refused(name, value, neutral):
    with pytest.raises(ValueError, match=f"`{name}` is {value}, which biases .* `{name}` {neutral}"):
        Sampling(**{name: value})
    Sampling(top_p=1.0, top_k=-1, min_p=0.0)


def test_errors_name_the_value():
    one = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="`level` is 'word'; it must be 'token', 'sequence_sum' or 'sequence_mean'"):
        importance_weights(one, one, one > 0, level="word")
    with pytest.raises(ValueError, match="`outside` is 'drop'; it must be 'truncate' or 'mask'"):
        importance_weights(one, one, one > 0, outside="drop")
    with pytest.raises(ValueError, match="`low` is 3 and `high` 2"):
        importance_weights(one, one, one > 0, low=3, high=2)
    with pytest.raises(ValueError, match="`threshold` is 0; it must be above 0"):
        off_policy_mask(one, one, one, one > 0, threshold=0)
