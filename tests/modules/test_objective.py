from functools import partial

import pytest
import torch

from m1lite.modules.objective import Objective
from m1lite.rl.losses import clipped_surrogate, policy_gradient
from m1lite.rl.mismatch import importance_weights


@pytest.fixture
def scores(make_batch):
    batch = make_batch(rows=3, width=15)
    draw = torch.Generator().manual_seed(5)
    old, logprobs, reference = (-torch.rand(batch.loss_mask.shape, generator=draw) * batch.loss_mask for _ in range(3))
    return batch, logprobs, old, reference


def test_sum_is_that_of_a_loop_over_tokens(scores):
    batch, logprobs, old, reference = scores
    objective = Objective(partial(clipped_surrogate, clip_low=0.1, clip_high=0.3), beta=0.2, correction=partial(importance_weights, high=1.1))
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
