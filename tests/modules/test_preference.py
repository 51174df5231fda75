"""Pairs, what the objectives score of them, and a tiny base that really learns to prefer."""

import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch.optim import SGD, AdamW

from m1lite.modules.bases import hash_weights
from m1lite.modules.optimizer import NonFiniteUpdateError
from m1lite.modules.preference import (
    PairBatch,
    PreferenceModule,
    differing_parts,
    differing_replies,
    pair_batch,
    whole_replies,
)
from m1lite.records import Trajectory, Turn, TurnKind
from m1lite.rl.preferences import dpo

OBJECTIVES = [partial(whole_replies, beta=0.5), partial(differing_replies, beta=0.5, alpha=0.02)]


def trajectory(agent, *turns, version=0):
    """One of (read, written) ids per turn."""
    return Trajectory(
        agent=agent,
        turns=[
            Turn(
                kind=TurnKind.PLAN,
                round=0,
                prompt_ids=list(read),
                reply_ids=list(written),
                logprobs=[0.0] * len(written),
                policy_version=version,
                seed=0,
                text="",
            )
            for read, written in turns
        ],
    )


def make_pairs(agent="ada", count=6, seed=0):
    """Replies of two turns on random questions; after a first word of chance each has words of its own."""
    draw = torch.Generator().manual_seed(seed)
    pairs = []
    for number in range(count):
        asked = torch.randint(10, 40, (4,), generator=draw).tolist()
        start = int(torch.randint(20, 80, (), generator=draw))
        up, down = [start, 90, 91], [start, 92, 93]
        more = [5] * (number % 3)
        pairs.append(
            (trajectory(agent, (asked, up), ([7, 8, *more], up[1:])), trajectory(agent, (asked, down), ([7], down)))
        )
    return pair_batch(pairs, pad_id=0)


def test_a_pair_is_what_the_agent_wrote_on_both_sides():
    better, worse = trajectory("ada", ([10, 11], [50, 51]), ([7], [52]), version=3), trajectory("ada", ([10, 11], [50]))
    pair = pair_batch([(better, worse)], pad_id=0)
    assert pair.agent == "ada"
    assert pair.better.input_ids.tolist() == [[10, 11, 50, 51, 7, 52]]
    assert pair.better.loss_mask.tolist() == [[False, False, True, True, False, True]]
    assert pair.worse.loss_mask.tolist() == [[False, False, True]]
    moved = pair.to("meta")
    assert {side.input_ids.device.type for side in (moved.better, moved.worse)} == {"meta"}


def test_differing_parts_are_those_that_one_side_has_alone():
    better = trajectory("ada", ([1, 2], [50, 51, 52, 53]), ([9], [54]))
    worse = trajectory("ada", ([1, 2], [50, 60, 61, 53]), ([9, 9], [54, 55]))
    same = trajectory("ada", ([1, 2], [50]))
    first, second = differing_parts(pair_batch([(better, worse), (same, same)], pad_id=0))
    assert first.nonzero().tolist() == [[0, 3], [0, 4]]  # 51 and 52
    assert second.nonzero().tolist() == [[0, 3], [0, 4], [0, 9]]  # 60, 61 and 55


def test_the_reference_and_its_divergence_are_the_plain_ones(team):
    batch = make_pairs("ada").better
    model = team.models["qwen3"]
    with torch.no_grad():
        model.set_adapter("ada")
        policy = model(input_ids=batch.input_ids).logits.log_softmax(-1)
        with model.disable_adapter():
            base = model(input_ids=batch.input_ids).logits.log_softmax(-1)
    expected = torch.zeros(batch.loss_mask.shape)
    for row, place in batch.loss_mask.nonzero().tolist():
        p, q = policy[row, place - 1], base[row, place - 1]
        expected[row, place] = sum((q.exp() * (q - p)).tolist())
    found = team.reference_divergence("ada", batch)
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-4)
    assert expected.max() > 1e-3
    found.sum().backward()
    assert all(value.grad is not None for value in team.adapter_parameters("ada").values())


def test_whole_replies_are_dpo_on_the_teams_scores(team):
    pair = make_pairs("cyd")
    losses, stats = whole_replies(team, pair, beta=0.3)
    sides = (pair.better, pair.worse)
    scores = [team.logprobs("cyd", side)[0] for side in sides]
    references = [team.reference_logprobs("cyd", side) for side in sides]
    expected, named = dpo(*scores, *references, *(side.loss_mask for side in sides), beta=0.3)
    torch.testing.assert_close(losses, expected)
    assert torch.equal(stats["rewards/margins"], named["rewards/margins"])


def test_parts_that_both_sides_have_teach_nothing(make_team):
    better, worse = trajectory("ada", ([10, 11], [50, 51, 52])), trajectory("ada", ([10, 11], [50, 51, 53]))
    same = pair_batch([(better, better)], pad_id=0)
    team = make_team(stir=0.05)
    losses, stats = differing_replies(team, same, alpha=0.0)
    assert losses.tolist() == pytest.approx([math.log(2)])
    assert stats["rewards/margins"].tolist() == [0.0]
    pair = pair_batch([(better, worse)], pad_id=0)
    only_last, _ = differing_replies(team, pair, beta=0.5, alpha=0.0)
    sides = [
        (team.logprobs("ada", side)[0] - team.reference_logprobs("ada", side))[0, 4]
        for side in (pair.better, pair.worse)
    ]
    assert only_last.item() == pytest.approx(math.log(1 + math.exp(-0.5 * (sides[0] - sides[1]).item())), abs=1e-5)


class Pairs:
    def __init__(self, steps, agents=("ada", "cyd")):
        self.steps, self.agents = steps, agents

    def __len__(self):
        return self.steps

    def __iter__(self):
        for step in range(self.steps):
            yield make_pairs(self.agents[step % len(self.agents)])


class Log(pl.Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def fit(module, steps, **kwargs):
    log = Log()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[log],
    )
    trainer.fit(module, Pairs(steps), **kwargs)
    return log.steps


@pytest.mark.parametrize("full", [(), ("cyd",)])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=["dpo", "rrpo"])
def test_a_tiny_team_learns_to_prefer(make_team, objective, full):
    team = make_team(full=full)
    hashes = {name: hash_weights(model) for name, model in team.models.items()}
    bystander = team.adapter_tensors("bea")
    logged = fit(PreferenceModule(team, optimizer=partial(AdamW, lr=0.005), objective=objective), 24)
    for agent in ("ada", "cyd"):
        margins = [step[f"{agent}/rewards/margins"] for step in logged if f"{agent}/rewards/margins" in step]
        assert margins[0] == pytest.approx(0, abs=1e-5), "the policy starts as its reference"
        assert margins[-1] > 1.0
        assert logged[-1][f"{agent}/rewards/accuracies"] == 1.0
        held_out = objective(team, make_pairs(agent, seed=9))[1]
        assert held_out["rewards/margins"].mean() > 0.3
    assert {name: hash_weights(model) for name, model in team.models.items()} == hashes
    assert all(torch.equal(value, bystander[name]) for name, value in team.adapter_tensors("bea").items())


def test_the_divergence_holds_the_policy_near_its_reference(make_team):
    found = []
    for alpha in (0.0, 3.0):
        team = make_team()
        objective = partial(differing_replies, beta=0.5, alpha=alpha)
        fit(PreferenceModule(team, optimizer=partial(AdamW, lr=0.005), objective=objective), 24)
        found.append(team.reference_divergence("ada", make_pairs("ada").better).mean().item())
    assert found[1] < 0.5 * found[0]


def test_a_loss_that_is_not_a_number_changes_nothing_and_is_named(make_team):
    def broken(team, pair):
        losses, stats = whole_replies(team, pair)
        return losses * math.nan, stats

    team = make_team()
    before = team.fingerprint()
    with pytest.raises(NonFiniteUpdateError, match="norm at step 0 is nan, so nothing was learnt"):
        fit(PreferenceModule(team, optimizer=partial(SGD, lr=0.1), objective=broken), 1)
    assert team.fingerprint() == before


def test_sides_that_do_not_belong_together_are_refused(make_batch):
    with pytest.raises(ValueError, match=r"\('ada', 5, 1.0\) and \('bea', 5, 1.0\)"):
        PairBatch(better=make_batch("ada"), worse=make_batch("bea"))
    with pytest.raises(ValueError, match="at least one trajectory"):
        pair_batch([], pad_id=0)
