"""CISPO, SAPO and VESPO against loops over Python floats, values and gradients."""

import math
from functools import partial

import pytest
import torch

from m1lite.rl.losses import policy_gradient
from m1lite.rl.ratios import sequence_ratio
from m1lite.rl.soft_losses import cispo, sapo, vespo

SHAPE = (4, 6)


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logprobs = -3 * torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    old = logprobs + 0.5 * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    advantages = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    mask = torch.rand(SHAPE, generator=generator) > 0.3
    return logprobs.requires_grad_(), old, advantages, mask


def check(function, expected, slopes, seed=0, **kwargs):
    """Compare with ``expected(row, place)`` and ``slopes(row, place)`` on the mask, 0 elsewhere."""
    logprobs, old, advantages, mask = draw(seed)
    losses, stats = function(logprobs, old, advantages, mask, **kwargs)
    (gradient,) = torch.autograd.grad(losses.sum(), logprobs)
    for row in range(SHAPE[0]):
        for place in range(SHAPE[1]):
            cell = (logprobs[row].tolist(), old[row].tolist(), advantages[row].tolist(), mask[row].tolist(), place)
            kept = bool(mask[row, place])
            assert losses[row, place].item() == pytest.approx(expected(*cell) if kept else 0.0, rel=1e-6)
            assert gradient[row, place].item() == pytest.approx(slopes(*cell) if kept else 0.0, rel=1e-6)
    return stats


def test_cispo_equals_the_loop():
    def weight(new, old, t):
        return min(max(math.exp(new[t] - old[t]), 0.7), 1.1)

    stats = check(
        partial(cispo, low=0.7, high=1.1),
        lambda new, old, adv, _, t: -weight(new, old, t) * adv[t] * new[t],
        lambda new, old, adv, _, t: -weight(new, old, t) * adv[t],
    )
    logprobs, old, advantages, mask = draw()
    cut = ((logprobs - old).exp() > 1.1) & (advantages > 0) & mask
    assert stats["cispo_clip_ratio"].item() == cut.sum().item() > 0


def test_sapo_equals_the_loop():
    def parts(new, old, adv, t):
        tau = 1.0 if adv[t] > 0 else 1.4
        ratio = math.exp(new[t] - old[t])
        return tau, ratio, 1 / (1 + math.exp(-tau * (ratio - 1)))

    def value(new, old, adv, _, t):
        tau, _, gate = parts(new, old, adv, t)
        return -4 / tau * gate * adv[t]

    def slope(new, old, adv, _, t):
        _, ratio, gate = parts(new, old, adv, t)
        return -4 * gate * (1 - gate) * ratio * adv[t]

    assert check(partial(sapo, temperature_negative=1.4), value, slope) == {}


@pytest.mark.parametrize("level", [None, "token", "sequence"])
def test_vespo_equals_the_loop(level):
    generator = torch.Generator().manual_seed(9)
    weights = torch.rand(SHAPE, generator=generator, dtype=torch.float64) + 0.5
    weights = {None: None, "token": weights, "sequence": weights[:, :1]}[level]
    logprobs, _, _, mask = draw()
    row_of = {tuple(row.tolist()): number for number, row in enumerate(logprobs)}

    def phi(new, old, adv, kept, t):
        log_w = sum(n - o for n, o, keep in zip(new, old, kept, strict=True) if keep)
        row = row_of[tuple(new)]
        if level == "token":
            log_w += sum(math.log(w) for w, keep in zip(weights[row].tolist(), mask[row].tolist(), strict=True) if keep)
        elif level == "sequence":
            log_w += math.log(weights[row, 0])
        k, decay = (2.0, 3.0) if adv[t] >= 0 else (3.0, 2.0)
        return math.exp(log_w) ** k * math.exp(decay * (1 - math.exp(log_w)))

    stats = check(
        vespo,
        lambda new, old, adv, kept, t: -phi(new, old, adv, kept, t) * adv[t] * new[t],
        lambda new, old, adv, kept, t: -phi(new, old, adv, kept, t) * adv[t],
        importance=weights,
    )
    assert stats["vespo/phi_seq_mean"] > 0


@pytest.mark.parametrize("loss", [cispo, sapo, vespo, partial(sapo, ratio=sequence_ratio)])
def test_on_policy_the_gradient_is_the_plain_one(loss):
    logprobs, _, advantages, mask = draw(1)
    if loss not in (cispo, sapo, vespo):
        advantages = advantages[:, :1].expand(SHAPE)  # a sequence's ratio spreads the gradient over its tokens
    (found,) = torch.autograd.grad(loss(logprobs, logprobs.detach(), advantages, mask)[0].sum(), logprobs)
    (plain,) = torch.autograd.grad(policy_gradient(logprobs, logprobs, advantages, mask)[0].sum(), logprobs)
    torch.testing.assert_close(found.sum(1), plain.sum(1))


@pytest.mark.parametrize("loss", [cispo, sapo])
def test_importance_multiplies(loss):
    logprobs, old, advantages, mask = draw(2)
    plain = loss(logprobs, old, advantages, mask)[0]
    doubled = loss(logprobs, old, advantages, mask, importance=torch.full((SHAPE[0], 1), 2.0, dtype=torch.float64))[0]
    torch.testing.assert_close(doubled, 2 * plain)


@pytest.mark.parametrize("loss", [cispo, sapo, vespo])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf")])
def test_what_stands_outside_the_mask_is_never_read(loss, garbage):
    logprobs, old, advantages, mask = (tensor.detach().clone() for tensor in draw(4))
    dirty = torch.where(mask, logprobs, garbage).requires_grad_()
    others = [torch.where(mask, tensor, garbage) for tensor in (old, advantages)]
    found = loss(dirty, *others, mask)[0]
    assert torch.equal(found, loss(logprobs, old, advantages, mask)[0])
    (gradient,) = torch.autograd.grad(found.sum(), dirty)
    assert gradient.isfinite().all()
    assert (gradient[~mask] == 0).all()


def test_errors_name_the_value():
    tensors = draw()
    with pytest.raises(ValueError, match=r"`low` is 0\.0 and `high` -1; they must be 0 <= low < high"):
        cispo(*tensors, high=-1)
    with pytest.raises(ValueError, match="`temperature_positive` is 0; it must be above 0"):
        sapo(*tensors, temperature_positive=0)
    with pytest.raises(ValueError, match="`decay_negative` is -2; it must be above 0"):
        vespo(*tensors, decay_negative=-2)
