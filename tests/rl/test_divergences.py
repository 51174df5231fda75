"""KL terms by loops, by the divergence that they estimate, and by the gradient that they give."""

import math
from functools import partial

import pytest
import torch

from m1lite.rl.divergences import kl_k1, kl_k2, kl_k3, off_policy_kl, penalised_rewards, penalised_turns
from m1lite.rl.ratios import sequence_ratio

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
ALL = torch.ones(1, 3, dtype=torch.bool)
KL = sum(p * math.log(p / q) for p, q in zip(POLICY.tolist(), REFERENCE.tolist(), strict=True))


def test_values_by_hand():
    new, reference = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.0]])
    mask = torch.tensor([[True, True]])
    assert kl_k1(new, reference, mask)[0].tolist() == [0.5, -1.0]
    assert kl_k2(new, reference, mask)[0].tolist() == [0.125, 0.5]
    expected = [math.exp(-0.5) + 0.5 - 1, math.exp(1.0) - 1.0 - 1]
    assert kl_k3(new, reference, mask)[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("estimate", [kl_k1, kl_k3])
def test_k1_and_k3_are_unbiased_in_value(estimate):
    values = estimate(POLICY.log()[None], REFERENCE.log()[None], ALL)
    assert (POLICY * values[0]).sum().item() == pytest.approx(KL)


def gradients(estimate, old=None):
    """Expected gradient towards the logits of one token, the sample drawn from ``old``, and the divergence's own."""
    logits = POLICY.log().clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    weights = POLICY if old is None else old
    values = estimate(logprobs[None], REFERENCE.log()[None], ALL, old_logprobs=weights.log()[None])[0]
    (found,) = torch.autograd.grad((weights * values).sum(), logits)
    logits = POLICY.log().clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    (true,) = torch.autograd.grad((logprobs.exp() * (logprobs - REFERENCE.log())).sum(), logits)
    return found, true


def test_gradients_of_the_estimates_are_what_the_text_says():
    found, true = gradients(kl_k2)
    torch.testing.assert_close(found, true)
    found, _ = gradients(kl_k1)
    torch.testing.assert_close(found, torch.zeros_like(found))
    found, _ = gradients(kl_k3)  # of KL(reference || policy)
    torch.testing.assert_close(found, POLICY - REFERENCE)


@pytest.mark.parametrize("estimate", [kl_k1, kl_k3])
def test_the_weighted_estimate_is_unbiased_off_policy_in_value_and_gradient(estimate):
    old = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    weighted = partial(off_policy_kl, estimate=estimate)
    values = weighted(POLICY.log()[None], REFERENCE.log()[None], ALL, old_logprobs=old.log()[None])[0]
    assert (old * values).sum().item() == pytest.approx(KL)
    found, true = gradients(weighted, old)
    torch.testing.assert_close(found, true)


def test_the_ratio_of_a_sequence_is_taken():
    new, old, reference = (torch.tensor([row]) for row in ([-1.0, -2.0], [-1.5, -1.0], [-1.2, -1.7]))
    mask = torch.tensor([[True, True]])
    found = off_policy_kl(new, reference, mask, old_logprobs=old, ratio=sequence_ratio)
    torch.testing.assert_close(found, kl_k3(new, reference, mask) * math.exp(-0.25))


@pytest.mark.parametrize("estimate", [kl_k1, kl_k2, kl_k3, off_policy_kl])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf")])
def test_what_stands_outside_the_mask_is_never_read(estimate, garbage):
    new = torch.tensor([[-1.0, garbage]], requires_grad=True)
    outside = torch.tensor([[-2.0, garbage]])
    values = estimate(new, outside, torch.tensor([[True, False]]), old_logprobs=outside)
    assert values[0, 1] == 0
    (gradient,) = torch.autograd.grad(values.sum(), new)
    assert gradient.isfinite().all()


def test_the_divergence_of_a_trajectory_is_taken_off_its_reward():
    new = torch.tensor([[-1.0, -2.0, 5.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], requires_grad=True)
    reference = torch.tensor([[-1.5, -1.0, 0.0], [0.0, 0.0, 0.0], [-3.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [False] * 3, [True, False, False]])
    found = penalised_rewards(torch.tensor([1.0, 0.5, float("nan")]), new, reference, mask, beta=0.1)
    assert found[:2].tolist() == pytest.approx([1.0 - 0.1 * (0.5 - 1.0), 0.5])
    assert found[2].isnan()
    assert not found.requires_grad


def test_errors_name_the_value():
    one = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"`beta` is -0\.5"):
        penalised_rewards(torch.zeros(2), one, one, one > 0, beta=-0.5)
    with pytest.raises(ValueError, match=r"`rewards` has shape \(3,\); it must be \(2,\)"):
        penalised_rewards(torch.zeros(3), one, one, one > 0, beta=0.5)
    with pytest.raises(ValueError, match=r"`reference_logprobs` has shape \(1, 3\)"):
        kl_k2(one, one[:1], one > 0)


@pytest.mark.parametrize("estimate", [kl_k1, kl_k2, kl_k3])
def test_every_turn_pays_for_its_own_tokens_and_all_together_for_the_trajectory(estimate):
    draw = torch.Generator().manual_seed(1)
    new, reference = -torch.rand(3, 9, generator=draw), -torch.rand(3, 9, generator=draw)
    mask = torch.rand(3, 9, generator=draw) < 0.6
    turns = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0, 1, 1, 1], [0] * 9])
    rewards = torch.rand(3, 3, generator=draw)
    rewards[1, 2] = rewards[2, 1] = rewards[2, 2] = math.nan
    found = penalised_turns(rewards, new, reference, mask, turns, beta=0.3, estimate=estimate)
    values = estimate(new, reference, mask, old_logprobs=new)
    for row in range(3):
        for turn in range(3):
            own = sum(values[row, t].item() for t in range(9) if turns[row, t] == turn and mask[row, t])
            assert found[row, turn].item() == pytest.approx(
                rewards[row, turn].item() - 0.3 * own, abs=1e-6, nan_ok=True
            )
    whole = penalised_rewards(rewards.nansum(1), new, reference, mask, beta=0.3, estimate=estimate)
    torch.testing.assert_close(found.nansum(1), whole)


def test_a_turn_without_a_place_is_named():
    ids = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="`turns` goes up to 2, but `rewards` has 2 turns"):
        penalised_turns(torch.zeros(1, 2), ids, ids, ALL, torch.tensor([[0, 1, 2]]), beta=0.1)
    with pytest.raises(ValueError, match=r"`rewards` has shape \(1,\); it must be \(1, turns\)"):
        penalised_turns(torch.zeros(1), ids, ids, ALL, ids.long(), beta=0.1)
    with pytest.raises(ValueError, match="`beta` is -1"):
        penalised_turns(torch.zeros(1, 2), ids, ids, ALL, ids.long(), beta=-1)
