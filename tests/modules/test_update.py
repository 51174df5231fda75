"""Sums of an agent's update: units of a reduction, samples of the engine, and numbers that are none."""

import math
from functools import partial

import pytest
import torch
from torch.optim import SGD

from m1lite.modules.batch import RolloutBatch
from m1lite.modules.marl import MarlModule, NonFiniteUpdateError
from m1lite.modules.objective import Objective
from m1lite.modules.update import AgentUpdate, token_means
from m1lite.rl.losses import policy_gradient
from m1lite.rl.mismatch import effective_sample_size, importance_weights
from m1lite.rl.reductions import fixed_length, sequence_mean, sequence_sum, token_mean

REDUCTIONS = [token_mean, sequence_mean, sequence_sum, partial(fixed_length, length=50)]


def backward(loss):
    loss.backward()


def update_of(team, batch, objective, **kwargs):
    return AgentUpdate(team, "ada", batch, objective=objective, backward=backward, **kwargs)


def gradient(team):
    parameters = team.adapter_parameters("ada").values()
    found = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in parameters])
    for parameter in parameters:
        parameter.grad = None
    return found


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_micro_batches_give_the_gradient_of_the_whole(team, make_batch, reduction):
    batch = make_batch(rows=7)
    batch.loss_mask[3] = False  # a row without tokens has no forward pass, but counts in a mean over rows
    objective = Objective(policy_gradient, reduction=reduction)
    parts = []
    for micro in (30, 4096):
        sums = update_of(team, batch, objective, micro_batch_tokens=micro).accumulate(range(7), anchored=False)
        parts.append(gradient(team) / sums["units"])
    logprobs, _ = team.logprobs("ada", batch)
    losses = policy_gradient(logprobs, logprobs, batch.advantages, batch.loss_mask)[0]
    divisors, units = reduction(batch.loss_mask)
    ((losses / divisors).sum() / units).backward()
    expected = gradient(team)
    for found in parts:
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_units_of_the_rollout_are_shared_by_its_minibatches(team, make_batch):
    batch = make_batch(rows=6)
    found = {}
    for units in ("minibatch", "rollout"):
        update = update_of(team, batch, Objective(units=units), micro_batch_tokens=4096, minibatches=2)
        update.anchor()
        found[units] = [update.accumulate(rows, anchored=True)["units"].item() for rows in ([0, 2, 4], [1, 3, 5], [])]
    tokens = batch.loss_mask.sum(1).tolist()
    assert found["minibatch"] == [sum(tokens[0::2]), sum(tokens[1::2]), 0]
    assert found["rollout"] == [sum(tokens) / 2] * 3


def test_the_engines_mismatch_is_logged_as_an_effective_sample_size(team, make_batch):
    batch = make_batch(rows=6)
    weigh = partial(importance_weights, level="token", high=1.5)
    update = update_of(team, batch, Objective(correction=weigh), micro_batch_tokens=40)
    sums = {name: value.item() for name, value in update.accumulate(range(6), anchored=False).items()}
    weights = weigh(update.old, batch.sampled_logprobs, batch.loss_mask)
    means = token_means(sums)
    expected = effective_sample_size(weights, batch.loss_mask).item()
    assert 0.1 < expected < 1
    assert means["sampling/effective_sample_size"] == pytest.approx(expected, rel=1e-4)
    assert means["sampling/correction"] == pytest.approx(weights[batch.loss_mask].mean().item(), rel=1e-4)
    assert not {"tokens", "units", "nonfinite_logprobs", "sampling/correction_squared"} & set(means)


def test_no_rows_give_the_same_names(team, make_batch):
    objective = Objective(reduction=sequence_mean, correction=importance_weights, beta=0.1)
    update = update_of(team, make_batch(), objective, micro_batch_tokens=40)
    assert update.accumulate([], anchored=False).keys() == update.accumulate([0, 1], anchored=False).keys()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["engine", "trainer"])
def test_a_log_prob_that_is_no_number_is_never_trained_on(make_team, make_batch, where, broken):
    # A ratio of infinity hides behind the clip, and without a correction the engine's log-probs are not even read:
    # the loss alone would not tell.
    team = make_team(stir=0.05)
    batch = RolloutBatch([])
    batch.tokens = {"ada": make_batch("ada")}
    row, place = batch.tokens["ada"].loss_mask.nonzero()[0].tolist()
    if where == "engine":
        batch.tokens["ada"].sampled_logprobs[row, place] = broken
    else:
        honest = team.logprobs

        def lying(agent, part):
            scores, entropy = honest(agent, part)
            spoil = torch.zeros_like(scores)
            spoil[part.loss_mask.nonzero(as_tuple=True)[0][0], part.loss_mask.nonzero(as_tuple=True)[1][0]] = broken
            return scores + spoil, entropy

        team.logprobs = lying
    before = team.fingerprint()
    module = MarlModule(team, optimizer=partial(SGD, lr=0.1), max_skipped=1)
    module.log_dict = module.manual_backward = lambda *_, **__: None
    module.manual_backward = backward
    optimizer = module.configure_optimizers()
    update = update_of(team, batch.tokens["ada"], module.objective, micro_batch_tokens=4096)
    values = module._train_agent(update, optimizer["ada"])
    assert values["skipped_updates"] == 1.0
    assert "loss" not in values
    with pytest.raises(NonFiniteUpdateError, match=r"'ada' at step 0 is not finite .* log-probs that are no number"):
        module._train_agent(update, optimizer["ada"])
    assert team.fingerprint() == before
    assert module.versions["ada"] == 0


def test_the_entropy_bonus_has_the_gradient_of_the_exact_entropy(team, make_batch):
    batch = make_batch(rows=4)
    grads = []
    for weight in (0.0, 0.5):
        objective = Objective(policy_gradient, entropy_weight=weight)
        update_of(team, batch, objective, micro_batch_tokens=40).accumulate(range(4), anchored=False)
        grads.append(gradient(team))
    model = team.models[team.members["ada"]]
    model.set_adapter("ada")
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits[:, :-1]
    entropy = torch.distributions.Categorical(logits=logits).entropy()[batch.loss_mask[:, 1:]]
    (-0.5 * entropy.sum()).backward()
    expected = gradient(team)
    assert expected.norm() > 1e-3
    torch.testing.assert_close(grads[1] - grads[0], expected, atol=2e-5, rtol=1e-3)
