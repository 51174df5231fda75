"""Losses against loops over Python floats, values and gradients."""

import math
from functools import partial

import pytest
import torch

from m1lite.rl.divergences import kl_k3
from m1lite.rl.losses import clipped_surrogate, cross_entropy, policy_gradient, token_sum

SHAPE = (3, 5)


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logprobs = -3 * torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    old = logprobs + 0.5 * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    advantages = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    mask = torch.rand(SHAPE, generator=generator) > 0.3
    return logprobs.requires_grad_(), old, advantages, mask


def cells(*tensors):
    return zip(*(tensor.flatten().tolist() for tensor in tensors), strict=True)


@pytest.mark.parametrize(
    ("low", "high", "cap"), [(0.2, 0.2, None), (0.1, 0.3, None), (0.2, 0.28, 1.5), (1.0, 0.0, 1.2)]
)
def test_clipped_surrogate_equals_the_loop(low, high, cap):
    logprobs, old, advantages, mask = draw()
    losses, stats = clipped_surrogate(logprobs, old, advantages, mask, clip_low=low, clip_high=high, ratio_cap=cap)
    expected, slopes, clipped_low, clipped_high = [], [], 0, 0
    for lp, lo, advantage, keep in cells(logprobs, old, advantages, mask):
        if not keep:
            expected.append(0.0)
            slopes.append(0.0)
            continue
        ratio = math.exp(lp - lo)
        free = ratio if cap is None else min(ratio, cap)
        bounded = min(max(ratio, 1 - low), 1 + high)
        expected.append(-min(free * advantage, bounded * advantage))
        # The gradient of exp(lp - lo) is the ratio itself; a branch that is cut has none.
        live = free * advantage <= bounded * advantage and free == ratio
        inside = bounded == ratio
        slopes.append(-ratio * advantage if live or inside else 0.0)
        clipped_low += free < 1 - low and advantage < 0
        clipped_high += free > 1 + high and advantage > 0
    assert losses.flatten().tolist() == pytest.approx(expected)
    losses.sum().backward()
    assert logprobs.grad.flatten().tolist() == pytest.approx(slopes)
    assert stats["clip_ratio/low_mean"].item() == clipped_low
    assert stats["clip_ratio/high_mean"].item() == clipped_high
    assert stats["clip_ratio/region_mean"].item() == clipped_low + clipped_high
    assert clipped_low + clipped_high > 0
    assert not any(value.requires_grad for value in stats.values())


def test_on_policy_the_surrogate_has_the_plain_gradient():
    logprobs, _, advantages, mask = draw(1)
    clipped_surrogate(logprobs, logprobs.detach(), advantages, mask)[0].sum().backward()
    surrogate, logprobs.grad = logprobs.grad, None
    policy_gradient(logprobs, logprobs.detach(), advantages, mask)[0].sum().backward()
    torch.testing.assert_close(surrogate, logprobs.grad)
    torch.testing.assert_close(surrogate, torch.where(mask, -advantages, 0.0))


def test_kl_k3_equals_the_loop_and_is_never_negative():
    logprobs, reference, _, mask = draw(2)
    found = kl_k3(logprobs, reference, mask)
    expected = [
        math.exp(ref - lp) - (ref - lp) - 1 if keep else 0.0 for lp, ref, keep in cells(logprobs, reference, mask)
    ]
    assert found.flatten().tolist() == pytest.approx(expected)
    assert (found >= 0).all()
    found.sum().backward()
    slopes = [1 - math.exp(ref - lp) if keep else 0.0 for lp, ref, keep in cells(logprobs, reference, mask)]
    assert logprobs.grad.flatten().tolist() == pytest.approx(slopes)


def test_kl_k3_keeps_the_digits_of_a_tiny_difference():
    logprobs = torch.tensor([[-1.0]])
    found = kl_k3(logprobs, logprobs + 2.0**-11, torch.tensor([[True]]))
    assert found.item() == pytest.approx(2.0**-23, rel=1e-3)


def test_kl_k3_estimates_the_divergence():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    values = kl_k3(policy.log()[None], reference.log()[None], torch.ones(1, 3, dtype=torch.bool))
    divergence = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    assert (policy * values[0]).sum().item() == pytest.approx(divergence, rel=1e-5)


def test_cross_entropy_with_mask_and_weights():
    logprobs, _, _, mask = draw(3)
    total, count = token_sum(cross_entropy(logprobs, mask), mask)
    kept = [lp for lp, keep in cells(logprobs, mask) if keep]
    assert total.item() == pytest.approx(-sum(kept))
    assert count.item() == len(kept)
    weights = mask * 3.0
    total, count = token_sum(cross_entropy(logprobs, weights), weights)
    assert (total / count).item() == pytest.approx(-sum(kept) / len(kept))
    assert count.item() == 3 * len(kept)


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf")])
def test_what_stands_outside_the_mask_is_never_read(garbage):
    logprobs, old, advantages, mask = (tensor.detach().clone() for tensor in draw(4))
    dirty = torch.where(mask, logprobs, garbage).requires_grad_()
    outside = torch.full_like(old, garbage)
    functions = [
        lambda lp, o, a: clipped_surrogate(lp, o, a, mask)[0],
        lambda lp, o, a: policy_gradient(lp, o, a, mask)[0],
        lambda lp, o, _: kl_k3(lp, o, mask),
        lambda lp, *_: cross_entropy(lp, mask),
        lambda lp, *_: cross_entropy(lp, mask.double()),
    ]
    for function in functions:
        clean = function(logprobs, old, advantages)
        found = function(dirty, torch.where(mask, old, outside), torch.where(mask, advantages, outside))
        assert torch.equal(found, clean)
        (gradient,) = torch.autograd.grad(found.sum(), dirty)
        assert gradient.isfinite().all()
        assert (gradient[~mask] == 0).all()


def test_parts_add_up_to_the_whole():
    logprobs, old, advantages, mask = draw(5)
    whole, count = token_sum(clipped_surrogate(logprobs, old, advantages, mask)[0], mask)
    parts = [
        token_sum(
            clipped_surrogate(logprobs[i : i + 1], old[i : i + 1], advantages[i : i + 1], mask[i : i + 1])[0],
            mask[i : i + 1],
        )
        for i in range(SHAPE[0])
    ]
    assert sum(part[0] for part in parts).item() == pytest.approx(whole.item())
    assert sum(part[1] for part in parts).item() == count.item() == mask.sum().item()


def test_a_batch_without_loss_tokens_is_legal():
    logprobs = torch.randn(SHAPE, requires_grad=True)
    nothing = torch.zeros(SHAPE, dtype=torch.bool)
    total, count = token_sum(clipped_surrogate(logprobs, torch.zeros(SHAPE), torch.ones(SHAPE), nothing)[0], nothing)
    total.backward()
    assert (total.item(), count.item()) == (0.0, 0.0)
    assert torch.equal(logprobs.grad, torch.zeros(SHAPE))


def test_errors_name_the_value():
    logprobs, old, advantages, mask = draw()
    surrogate = partial(clipped_surrogate, logprobs, old, advantages, mask)
    with pytest.raises(ValueError, match=r"`clip_low` is 1.2"):
        surrogate(clip_low=1.2)
    with pytest.raises(ValueError, match=r"`clip_high` is -0.1"):
        surrogate(clip_high=-0.1)
    with pytest.raises(ValueError, match=r"`ratio_cap` is 1.1; it must be above 1 \+ clip_high = 1.2"):
        surrogate(ratio_cap=1.1)
    with pytest.raises(ValueError, match=r"`advantages` has shape \(3,\)"):
        clipped_surrogate(logprobs, old, torch.zeros(3), mask)
    with pytest.raises(ValueError, match=r"`mask` has shape \(2, 5\)"):
        cross_entropy(logprobs, mask[:2])
