from functools import partial

import pytest
import torch

from m1lite.modules.objective import Objective, check_entropy
from m1lite.rl.divergences import kl_k3
from m1lite.rl.losses import clipped_surrogate, policy_gradient
from m1lite.rl.mismatch import importance_weights
from m1lite.rl.reductions import sequence_mean


@pytest.fixture
def scores(make_batch):
    batch = make_batch(rows=3, width=15)
    draw = torch.Generator().manual_seed(5)
    old, logprobs, reference = (-torch.rand(batch.loss_mask.shape, generator=draw) * batch.loss_mask for _ in range(3))
    return batch, logprobs, old, reference


def test_sum_is_that_of_a_loop_over_tokens(scores):
    batch, logprobs, old, reference = scores
    objective = Objective(
        partial(clipped_surrogate, clip_low=0.1, clip_high=0.3),
        beta=0.2,
        correction=partial(importance_weights, high=1.1),
    )
    loss, sums = objective(batch, logprobs, old, reference)
    total = kl_total = 0.0
    for row, place in batch.loss_mask.nonzero().tolist():
        new, was, ref = (float(values[row, place]) for values in (logprobs, old, reference))
        weight = min(torch.tensor(was - float(batch.sampled_logprobs[row, place])).exp().item(), 1.1)
        advantage = float(batch.advantages[row, place]) * weight
        ratio = torch.tensor(new - was).exp().item()
        kl = torch.tensor(ref - new).exp().item() - (ref - new) - 1
        total += -min(ratio * advantage, min(max(ratio, 0.9), 1.3) * advantage) + 0.2 * kl
        kl_total += kl
    assert loss.item() == pytest.approx(total, abs=1e-4)
    assert sums["loss"].item() == pytest.approx(total, abs=1e-4)
    assert sums["kl"].item() == pytest.approx(kl_total, abs=1e-4)


def test_without_beta_no_reference_is_needed(scores):
    batch, logprobs, old, _ = scores
    objective = Objective(policy_gradient)
    loss, sums = objective(batch, logprobs, old, None)
    assert not objective.needs_reference
    assert set(sums) == {"loss"}
    assert loss.item() == pytest.approx(-(logprobs * batch.advantages).sum().item(), abs=1e-4)


def test_values_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"`beta` is -0\.1"):
        Objective(beta=-0.1)
    with pytest.raises(ValueError, match=r"`entropy_weight` is -1"):
        Objective(entropy_weight=-1)
    with pytest.raises(ValueError, match="`units` is 'step'; it must be 'minibatch' or 'rollout'"):
        Objective(units="step")


def test_entropies_are_paid_as_the_reduction_has_it(scores):
    batch, logprobs, old, _ = scores
    entropy = torch.rand(logprobs.shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    plain = Objective(reduction=sequence_mean)(batch, logprobs, old, None)[0]
    paid = Objective(reduction=sequence_mean, entropy_weight=0.3)(batch, logprobs, old, None, entropy)[0]
    lengths = batch.loss_mask.sum(1).clamp(min=1)
    bonus = sum(0.3 * (entropy[row] * batch.loss_mask[row]).sum() / lengths[row] for row in range(3))
    assert (plain - paid).item() == pytest.approx(bonus.item(), rel=1e-4)
    (slopes,) = torch.autograd.grad(paid, entropy)
    torch.testing.assert_close(slopes, -0.3 * batch.loss_mask / lengths[:, None])


def test_entropies_without_gradient_are_refused():
    entropy = torch.zeros(2, 3)
    check_entropy(Objective(), entropy)
    check_entropy(Objective(entropy_weight=0.1), entropy.clone().requires_grad_())
    with pytest.raises(ValueError, match=r"`entropy_weight` is 0\.1, but the entropies carry no gradient"):
        check_entropy(Objective(entropy_weight=0.1), entropy)


def test_dropped_sequences_still_pay_the_divergence(scores):
    batch, logprobs, old, reference = scores
    nobody = lambda *tensors: torch.zeros_like(batch.loss_mask)  # noqa: E731
    total, sums = Objective(sequence_filter=nobody, beta=0.5)(batch, logprobs, old, reference)
    assert total.item() == pytest.approx(0.5 * kl_k3(logprobs, reference, batch.loss_mask).sum().item(), rel=1e-5)
    assert sums["sampling/kept"] == 0
